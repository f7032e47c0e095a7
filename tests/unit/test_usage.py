"""The divisions of a cache's space add up, and policies free what runs would delete."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig import ENTRY_VERSION, BlobKey, Ref, parse_key
from maintainer.model.entry import StoredEntry, StoreLimits
from maintainer.model.reason import ClosedRefsUnknown, PullRequestClosed
from maintainer.model.store import NO_FACTS, StoreFacts
from maintainer.report.usage import BUILDKIT, UsagePolicy, measure
from tests.snapshots import MAIN, NOW, PULL, WEB, ago, blob, hours

LIMITS = StoreLimits(10 * 10**9, is_assumed=True)
DAY = timedelta(days=1)


def _entry(key: str, ref: Ref = MAIN, *, size: int = 10, used: timedelta = DAY) -> StoredEntry:
    parsed = parse_key(key)
    version = ENTRY_VERSION if parsed else "1"
    at = ago(used)
    return StoredEntry(hash((key, ref)) & 0xFFFF, ref, key, version, size, at, at, parsed)


def test_entries_are_divided_by_tool_ref_kind_and_scope() -> None:
    entries = [
        _entry(str(BlobKey(blob("a"))), size=40),
        _entry(str(WEB.key(1)), size=2),
        _entry("setup-node-1", PULL, size=7, used=hours(1)),
        _entry("0123456789", Ref("refs/tags/v1")),
        _entry("odd", Ref("elsewhere"), size=1),
        _entry("odd", Ref("refs/notes/x"), size=1),
    ]

    usage = measure("it", entries, NO_FACTS, LIMITS, NOW)

    assert (usage.entries, usage.used) == (6, 61)
    assert [(one.name, one.size) for one in usage.kinds] == [
        ("branches", 42),
        ("tags", 10),
        ("pull requests", 7),
        ("other refs", 2),
    ]
    assert [(one.name, one.size) for one in usage.tools] == [
        (BUILDKIT, 42),
        ("", 10),
        ("setup-node-", 7),
        ("odd", 2),
    ]
    assert [(one.name, one.size) for one in usage.scopes] == [("web", 2)]
    assert usage.refs[-1].last_used_at == ago(DAY)
    assert not any(one.closed for one in usage.refs)
    assert usage.policies == ()


def test_what_is_closed_and_what_is_unknown_is_shown() -> None:
    facts = StoreFacts(
        closed_refs={PULL: PullRequestClosed(7, None)},
        notes=(ClosedRefsUnknown(2, "no permission"),),
    )

    usage = measure("it", [_entry("a-", PULL), _entry("b", MAIN)], facts, LIMITS, NOW)

    assert {one.name: one.closed for one in usage.refs} == {
        PULL: "pull request 7 was closed, so no build reads it",
        MAIN: "",
    }
    assert usage.notes == (
        "it is not known whether 2 refs are closed, so they are kept: no permission",
    )
    assert usage.policies == (UsagePolicy("room", ("closed_refs = true",), 1, 10),)


def test_rules_are_suggested_that_would_free_something() -> None:
    nodes = [_entry(f"setup-node-{number}", used=hours(number)) for number in range(4)]
    rust = [_entry("v0-rust-1", used=5 * DAY), _entry("v0-rust-2", used=4 * DAY)]

    policies = measure("it", [*nodes, *rust], NO_FACTS, LIMITS, NOW).policies

    assert [(one.name, one.entries, one.size) for one in policies] == [
        ('[room.rules] prefix = "setup-node-", keep_newest = 2', 2, 20),
        ('[room.rules] prefix = "v0-rust-", unused_for = "5d"', 1, 10),
    ]


def test_a_rule_counts_what_it_would_free_without_the_other_policies() -> None:
    """A run with `closed_refs`, too, leaves the entry of the closed ref to that."""
    facts = StoreFacts(closed_refs={PULL: PullRequestClosed(7, ago(4 * DAY))})
    entries = [
        _entry("go-1", size=40, used=6 * DAY),
        _entry("go-2", PULL, size=2, used=6 * DAY),
    ]

    usage = measure("it", entries, facts, LIMITS, NOW)

    assert [(one.table, one.entries, one.size) for one in usage.policies] == [
        ("room.rules", 2, 42),
        ("room", 1, 2),
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a-1", "a-2", "b", str(WEB.key(1)), str(BlobKey(blob("a")))]),
            st.sampled_from([MAIN, PULL, Ref("refs/heads/x")]),
            st.integers(0, 10**12),
        ),
        max_size=12,
    )
)
def test_every_division_adds_up(entries: list[tuple[str, Ref, int]]) -> None:
    stored = [_entry(key, ref, size=size) for key, ref, size in entries]

    usage = measure("it", stored, NO_FACTS, LIMITS, NOW)

    for parts in (usage.kinds, usage.refs, usage.tools):
        assert sum(one.size for one in parts) == usage.used
        assert sum(one.entries for one in parts) == usage.entries == len(stored)
        assert [one.size for one in parts] == sorted((one.size for one in parts), reverse=True)
