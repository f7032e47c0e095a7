"""A database of a service with many targets, whose rows are written and not run."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, insert

from maintainer.graph.tables import RUN, RUN_STATE, SCHEDULED, SUMMARY, TARGET
from maintainer.report.model import Space, SpacePart, UsedDay

GB = 10**9
_LEVELS = ("good", "good", "good", "attention", "bad", *["good"] * 45)
"""A few of many need attention."""


def fill(connection: Connection, number: int, now: datetime, *, runs: int = 3) -> None:
    """Write so many targets, each with some runs; every 50th one fails, and every 60th is new."""
    rows: dict[Any, list[dict[str, Any]]] = {
        one: [] for one in (TARGET, RUN, RUN_STATE, SUMMARY, SCHEDULED)
    }
    for one in range(1, number + 1):
        name, used = f"octo.app-{one}", one % 10 * GB
        first = (one - 1) * runs + 1
        rows[TARGET].append({"id": one, "name": f"github:octo/app-{one}"})
        for run in range(first, first + runs):
            rows[RUN].append(_run(run, one, now - timedelta(hours=6 * (first + runs - run))))
            rows[RUN_STATE].append(
                {"run_id": run, "state": "reachable", "entries": 10, "size": used}
            )
        level = _LEVELS[one % len(_LEVELS)]
        rows[SUMMARY].append(
            {
                "target_id": one,
                "run_id": first + runs - 1,
                "status": "done",
                "level": level,
                "message": "" if level == "good" else f"The cache is {one % 10}0 % full.",
                "used": used,
                "quota": 10 * GB,
                "results": one % 300,
                "space": msgspec.json.encode(_space(used, now)),
                "succeeded_at": now - timedelta(hours=1),
            }
        )
        rows[SCHEDULED].append(_scheduled(one, name, first + runs - 1, now))
    for table, values in rows.items():
        connection.execute(insert(table), values)


def _run(run: int, target: int, at: datetime) -> dict[str, Any]:
    return {
        "id": run,
        "target_id": target,
        "started_at": at,
        "finished_at": at + timedelta(seconds=4),
        "version": "0",
        "process": "1@host",
        "dry_run": False,
        "status": "done",
        "report": _REPORT,
    }


_REPORT = msgspec.json.encode(
    {
        "entries": [{"state": "reachable", "entries": 10, "size": GB}],
        "requests": {"counts": {"list": 4}, "retries": 0},
    }
)


def _space(used: int, now: datetime) -> Space:
    parts: Sequence[SpacePart] = (
        SpacePart("reachable", "reachable", 10, used // 2),
        SpacePart("foreign", "setup-node-", 3, used - used // 2),
        SpacePart("free", "free", 0, 10 * GB - used),
    )
    days = (UsedDay(now.date(), 10, used // 2), UsedDay(None, 3, used - used // 2))
    return Space(10 * GB, used, tuple(parts), used_days=days)


def _scheduled(number: int, name: str, run: int, now: datetime) -> dict[str, Any]:
    is_new, fails = number % 60 == 0, number % 50 == 0
    return {
        "name": name,
        "position": number,
        "cache": f"{number}",
        "rule": "every 6h",
        "misfire_grace_seconds": 3600,
        "next_run_at": now + timedelta(hours=5),
        "due_at": now + timedelta(hours=5),
        "target": None if is_new else f"github:octo/app-{number}",
        "finished_at": None if is_new else now - timedelta(hours=1),
        "status": None if is_new else "failed" if fails else "done",
        "problem": "GitHub's API answered HTTP 500" if fails and not is_new else None,
        "run_id": None if is_new else run,
        "failures": 2 if fails and not is_new else 0,
    }
