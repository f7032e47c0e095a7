"""A report in which every text is somebody's name."""

from datetime import UTC, date, datetime

from maintainer.model.outcome import Done, Kept
from maintainer.model.reason import Problem, SweepUnchecked
from maintainer.report import EntryTotal, IndexReport, Report, RequestReport
from maintainer.report.actions import make_action
from maintainer.report.model import (
    ChainRow,
    Changes,
    EvictionDay,
    GoneEntry,
    LostBlob,
    NamedSpace,
    NoteReport,
    ResultTotals,
    Space,
    SpacePart,
    StoreReport,
    Trend,
    TrendPoint,
    UsedDay,
    Verdict,
)

AT = datetime(2026, 8, 1, 12, tzinfo=UTC)
DIRECTORY = StoreReport("directory")
"""A store where nobody evicts and an index has a name."""


def an_index(name: str = "web", /, **more: object) -> IndexReport:
    """Return an index that was written."""
    values: dict[str, object] = {
        "scope": name,
        "ref": f"refs/heads/{name}",
        "signed": False,
        "generations": 3,
        "generations_after": 2,
        "merged_from": (1, 2, 3),
        "usable_before": 4,
        "usable_after": 9,
        "blobs_missing": 1,
        "bytes_usable": 5_000,
        "bytes_dangling_before": 10,
        "bytes_dangling_after": 0,
        "written": f"index-{name}-1-00000000#4",
        "outcome": Done(),
        "outcome_sentence": "done",
        "reason": Problem(f"merge {name}"),
        "sentence": f"merge {name}",
        "keys": 12,
        "usable_possible": 9,
        "results_lost": 2,
        "lost": (LostBlob(f"sha256:{name}", 100, 2),),
        "newest_at": AT,
        "oldest_at": AT,
        "chains": (
            ChainRow(0, f"sha256:{name}", 2, 4_000, 0.8, 5, (name, "other"), 3),
            ChainRow(1, f"sha256:above {name}", 1, 1_000, 0.2, 4),
        ),
        "chains_omitted": 1,
        "bytes_own": 1_000,
    }
    return IndexReport(**(values | more))  # type: ignore[arg-type]


def a_report(name: str = "web", /, **more: object) -> Report:
    """Return a report whose every text holds `name`."""
    why = Problem(f"why {name}")
    values: dict[str, object] = {
        "run": 3,
        "target": f"github:example/{name}",
        "store": StoreReport("service", evicted_by="GitHub", numbered=True),
        "version": "0",
        "started_at": AT,
        "finished_at": AT,
        "dry_run": False,
        "status": "done",
        "problems": (f"problem {name}",),
        "notes": (NoteReport(SweepUnchecked(f"note {name}"), f"note {name}"),),
        "grace_seconds": 86_400,
        "readable": (f"refs/heads/{name}",),
        "writable": (f"refs/heads/{name}",),
        "entries": (EntryTotal("reachable", 5, 5_000), EntryTotal("foreign", 1, 3_000)),
        "indexes": (an_index(name), an_index(f"other {name}", signed=True)),
        "actions": (
            make_action("write", f"index-{name}", f"ref {name}", why, Done(), size=9),
            make_action("delete", f"blob-{name}", f"ref {name}", why, Done(), store_id=7, size=90),
            make_action("keep", f"kept-{name}", f"ref {name}", why, Kept(), store_id=8, size=80),
        ),
        "requests": RequestReport({"list": 1}, 0),
        "results": ResultTotals(4, 9, 9, size=5_000),
        "verdict": Verdict("attention", f"message {name}", f"advice {name}"),
        "space": Space(
            10_000,
            8_000,
            (
                SpacePart("reachable", "reachable", 5, 5_000),
                SpacePart("foreign", name, 1, 3_000),
                SpacePart("free", "free", 0, 2_000),
            ),
            refs=(NamedSpace(f"refs/heads/{name}", 5, 5_000), NamedSpace("", 1, 3_000)),
            used_days=(UsedDay(date(2026, 8, 1), 5, 5_000), UsedDay(None, 1, 3_000)),
        ),
        "changes": Changes(2, AT, 1, 10, 1, 10, (GoneEntry(f"key {name}", f"ref {name}", 10),)),
        "trend": Trend(
            (TrendPoint(2, AT, {"reachable": 4_000}, 4), TrendPoint(3, AT, {"foreign": 1}, 9)),
            2,
            (EvictionDay(date(2026, 8, 1), 1, 10),),
        ),
    }
    return Report(**(values | more))  # type: ignore[arg-type]
