"""Metrics for Prometheus, read from the database for each request.

Labels are names from the configuration and our own constants, so there are few of each.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection

from maintainer import __version__
from maintainer.graph.discovered import DiscoveryStatus, load_discoveries
from maintainer.graph.ended import load_ended
from maintainer.graph.summaries import Overview, load_overviews
from maintainer.report.verdict import LEVELS
from maintainer.serve.web.figures import LastRun, TargetFigures, read_figures
from maintainer.serve.web.selection import ORDER

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


MAX_TARGETS = 200
"""Up to so many targets have metrics of their own, unless they are asked for."""


def render_metrics(
    connection: Connection,
    now: datetime,
    *,
    wanted: Collection[str] = (),
    every: bool = False,
    has_read_settings: bool = True,
) -> bytes:
    """Return metrics in Prometheus' text format.

    `has_read_settings` is whether the configuration that was read last applies.

    Those of all targets together come first. If there are many targets, only the `wanted` ones have
    metrics of their own, unless `every` one is asked for.
    """
    registry = CollectorRegistry()
    ended = load_ended(connection)
    targets = load_overviews(connection)
    if wanted:
        chosen = [one for one in targets if one.status.name in wanted]
    else:
        chosen = targets if every or len(targets) <= MAX_TARGETS else []
    registry.register(_Fleet(targets, load_discoveries(connection), now, ended, has_read_settings))
    registry.register(_Metrics(read_figures(connection, chosen), now, ended))
    return generate_latest(registry)


class _Fleet(Collector):
    """The metrics of all targets together."""

    def __init__(
        self,
        targets: Sequence[Overview],
        discoveries: Sequence[DiscoveryStatus],
        now: datetime,
        ended: Mapping[tuple[str, str], int],
        has_read_settings: bool,
    ) -> None:
        self._targets = targets
        self._discoveries = discoveries
        self._now = now
        self._ended = ended
        self._has_read_settings = has_read_settings

    def describe(self) -> list[Metric]:
        """Return no metrics in advance."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the metric families."""
        version = GaugeMetricFamily(
            "maintainer_info", "The version of maintainer.", labels=["version"]
        )
        version.add_metric([__version__], 1)
        yield version
        yield GaugeMetricFamily(
            "maintainer_configuration_up",
            "Whether the configuration that was read last applies.",
            value=self._has_read_settings,
        )
        yield from self._states()
        yield from self._ends()

    def _states(self) -> Iterator[Metric]:
        levels = Counter(one.level(self._now) for one in self._targets)
        health = GaugeMetricFamily(
            "maintainer_fleet_targets", "Targets, by the level of their verdict.", labels=["level"]
        )
        for level in ORDER:
            health.add_metric([level], levels[level])
        yield health
        statuses = [one.status for one in self._targets]
        for name, text, value in (
            (
                "failing",
                "Targets whose last attempt failed.",
                sum(one.last_status == "failed" for one in statuses),
            ),
            (
                "overdue",
                "Targets whose run should have started but has not.",
                sum(one.is_overdue(self._now) for one in statuses),
            ),
            (
                "running",
                "Targets with an active run.",
                sum(one.running_since is not None for one in statuses),
            ),
            (
                "stored_bytes",
                "Bytes at the end of the last runs.",
                sum(one.summary.used for one in self._targets if one.summary),
            ),
        ):
            yield GaugeMetricFamily(f"maintainer_fleet_{name}", text, value=value)

    def _ends(self) -> Iterator[Metric]:
        runs = CounterMetricFamily(
            "maintainer_fleet_runs",
            "Runs that have ended, of all targets that there ever were, by status.",
            labels=["status"],
        )
        counts = Counter[str]()
        for (_, status), number in self._ended.items():
            counts[status] += number
        for status, number in sorted(counts.items()):
            runs.add_metric([status], number)
        yield runs
        up = GaugeMetricFamily(
            "maintainer_discovery_up",
            "Whether the last search found everything.",
            labels=["discovery"],
        )
        for one in self._discoveries:
            up.add_metric([one.name], one.problem is None)
        yield up


class _Metrics(Collector):
    """The metrics of some targets."""

    def __init__(
        self, targets: list[TargetFigures], now: datetime, ended: Mapping[tuple[str, str], int]
    ) -> None:
        self._targets = targets
        self._now = now
        names = {one.status.name for one in targets}
        self._ended = {key: number for key, number in ended.items() if key[0] in names}

    def describe(self) -> list[Metric]:
        """Return no metrics in advance."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the metric families."""
        yield from self._attempts()
        yield from self._runs()
        yield from self._stored()

    def _attempts(self) -> Iterator[Metric]:
        yield _gauge(
            "target_up",
            "Whether the last attempt succeeded.",
            ((known, known.status.last_status == "done") for known in self._targets),
        )
        yield _gauge(
            "target_overdue",
            "Whether a run should have started but has not.",
            ((known, known.status.is_overdue(self._now)) for known in self._targets),
        )
        yield _gauge(
            "target_running",
            "Whether a run is active.",
            ((known, known.status.running_since is not None) for known in self._targets),
        )
        yield _gauge(
            "consecutive_failures",
            "Failed attempts since the last successful one.",
            ((known, known.status.failures) for known in self._targets),
        )
        yield _gauge(
            "next_run_timestamp_seconds",
            "When the target's next run starts.",
            ((known, known.status.next_run_at.timestamp()) for known in self._targets),
        )
        yield _gauge(
            "last_success_timestamp_seconds",
            "When the last successful run ended.",
            (
                (known, known.status.last_success_at.timestamp())
                for known in self._targets
                if known.status.last_success_at
            ),
        )
        yield _gauge(
            "rate_limit_remaining_requests",
            "Requests that the REST API still allows the token, as last reported.",
            (
                (known, known.status.rate_limit_remaining)
                for known in self._targets
                if known.status.rate_limit_remaining is not None
            ),
        )

    def _runs(self) -> Iterator[Metric]:
        runs = CounterMetricFamily(
            "maintainer_runs",
            "Runs that have ended, by status.",
            labels=["target", "status"],
        )
        for (name, status), number in sorted(self._ended.items()):
            runs.add_metric([name, status], number)
        requests = _family("last_run_requests", "Requests of the last run, by kind.", "kind")
        for known in self._targets:
            if known.last:
                for kind, number in sorted(known.last.figures.requests.counts.items()):
                    requests.add_metric([known.status.name, kind], number)
        yield runs
        yield requests
        yield _gauge(
            "last_run_retries",
            "Retried requests of the last run.",
            ((known, last.figures.requests.retries) for known, last in self._last()),
        )
        yield _gauge(
            "last_run_duration_seconds",
            "Duration of the last run.",
            (
                (known, (last.finished_at - last.started_at).total_seconds())
                for known, last in self._last()
            ),
        )

    def _stored(self) -> Iterator[Metric]:
        entries = _family(
            "stored_entries", "Stored entries at the end of the last run, by state.", "state"
        )
        size = _family(
            "stored_bytes", "Stored bytes at the end of the last run, by state.", "state"
        )
        for known, last in self._last():
            for total in last.figures.entries:
                entries.add_metric([known.status.name, total.state], total.entries)
                size.add_metric([known.status.name, total.state], total.size)
        yield entries
        yield size
        yield _gauge(
            "quota_bytes",
            "Bytes above which the store evicts or runs make room, if there are any.",
            (
                (known, space.quota)
                for known, last in self._last()
                if (space := last.figures.space) and space.quota is not None
            ),
        )
        yield _gauge(
            "indexes_broken",
            "Indexes that were invalid or referenced missing blobs when the last run began.",
            ((known, last.figures.indexes_broken) for known, last in self._last()),
        )
        yield from self._results()
        yield _gauge(
            "last_run_blobs_gone",
            "Blobs that have gone since the run before the last one, and that no run deleted.",
            ((known, last.blobs_gone) for known, last in self._last()),
        )

    def _results(self) -> Iterator[Metric]:
        known = [(one, last.figures) for one, last in self._last() if last.figures.readable]
        yield _gauge(
            "results_usable",
            "Results that builds can use, each counted once.",
            ((one, figures.results.after) for one, figures in known),
        )
        yield _gauge(
            "results_possible",
            "Results whose blobs exist, even if builds do not find them.",
            ((one, figures.results.possible) for one, figures in known),
        )
        verdict = _family(
            "verdict", "1 for the verdict of the last run, 0 for the others.", "level"
        )
        for target in self._targets:
            found = target.level(self._now)
            for level in LEVELS if found in LEVELS else ():
                verdict.add_metric([target.status.name, level], float(level == found))
        yield verdict

    def _last(self) -> list[tuple[TargetFigures, LastRun]]:
        return [(known, known.last) for known in self._targets if known.last]


def _family(name: str, text: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"maintainer_{name}", text, labels=["target", label])


def _gauge(
    name: str, text: str, values: Iterator[tuple[TargetFigures, float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"maintainer_{name}", text, labels=["target"])
    for known, value in values:
        family.add_metric([known.status.name], float(value))
    return family
