"""Builds, imports, evictions, clocks, faults and runs in any order: no promise is ever broken.

The promises are checked after every request. What builds do between two requests of a run is done
by an observer, on the emulator's own thread.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from maintainer.cacheconfig import BlobKey, Digest, IndexId, Ref, Scope, parse_key
from maintainer.emulator import ActionsCache, Entry, Fault, FaultPlan, Request
from maintainer.emulator.state import DEFAULT_QUOTA
from maintainer.report import Report
from tests.integration.invariants import Watcher
from tests.integration.simulated_builds import (
    STEPS,
    Build,
    blobs_in,
    built,
    index_of,
    read_by_builders,
    usable_in,
)
from tests.integration.simulated_promises import (
    SKEW,
    Checks,
    Contents,
    Import,
    Ledger,
    come_meanwhile,
    counts_visibly,
    lost_by,
    taken_from,
    unhealed,
)
from tests.integration.simulated_runs import MERGED, Memory, Runner, Turns, Workflow
from tests.integration.world import MAIN, START, World, a_world
from tests.samples import examples

PULLS = ("refs/pull/7/merge", "refs/pull/8/merge")
SCOPES = ("buildkit", "web")
MEMORIES = 2
_A_DAY = timedelta(days=1)
_OTHERS = (
    ("node-modules-linux", None),
    ("buildkit-blob-1-sha256:abc", None),
    ("index-buildkit-1-00000000#7", None),
    ("buildkit-blob-1-sha256:" + "0" * 64, "another version"),
)
"""Keys that are not ours, however much they look so, and their versions."""


@dataclass
class Figures:
    """How much was tried."""

    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in sorted(self.counts.items()))


@dataclass
class Site:
    """What all sequences share."""

    world: World
    runner: Runner
    memories: list[Memory]
    spare: Path
    figures: Figures


@dataclass
class Known:
    """What the sequence so far has come to, besides the state of the cache."""

    ledgers: list[Ledger]
    imports: list[Import] = field(default_factory=list)
    checks: Checks = field(default_factory=Checks)


@dataclass
class Kept:
    """A moment to come back to."""

    state: dict[str, Any]
    known: Known


@dataclass(frozen=True)
class Job:
    """A build to do."""

    ref: str
    scope: str
    signed: bool
    wanted: frozenset[int]
    variant: int
    only_targets: bool
    steps: int | None
    """How far it goes for now; None to its end."""
    minutes: int
    """How long after the one before."""
    lists: bool
    """Whether its export lists the stored blobs once, and looks none of them up."""


refs = st.sampled_from([MAIN, MAIN, MAIN, *PULLS])
targets = st.frozensets(st.integers(2, len(STEPS) - 1), min_size=1, max_size=3)
graces = st.sampled_from([timedelta(0), timedelta(0), timedelta(hours=1), timedelta(days=1)])
numbers = st.integers(0, 30)
passing = st.sampled_from([0, 60, 3_600, 2 * 3_600, 25 * 3_600, 50 * 3_600, 8 * 86_400])
jobs = st.builds(
    Job,
    ref=st.sampled_from([*[MAIN] * 4, *PULLS]),
    scope=st.sampled_from(SCOPES),
    signed=st.sampled_from([False] * 7 + [True]),
    wanted=targets,
    variant=st.integers(0, 1),
    only_targets=st.booleans(),
    steps=st.sampled_from([None] * 8 + list(range(8))),
    minutes=st.sampled_from([0, 1, 30]),
    lists=st.booleans(),
)
Meanwhile = dict[int, list["int | Job"]]
"""What happens before which request of a run: builds, or what a number stands for."""
happenings: st.SearchStrategy[Meanwhile] = st.dictionaries(
    st.integers(1, 25), st.lists(numbers | jobs, max_size=2), min_size=1, max_size=4
)
workflows = st.builds(
    Workflow,
    ref=st.sampled_from([MAIN, MAIN, MAIN, PULLS[0]]),
    rest=st.sampled_from([True, True, False]),
    service=st.sampled_from(["v2", "v1"]),
    grace=graces,
    generation_gap=st.sampled_from([20, 20, 1]),
    merged_scope=st.sampled_from([MERGED, MERGED, ""]),
    export_wait=st.sampled_from([timedelta(0), timedelta(0), timedelta(seconds=40)]),
    verify_after=st.sampled_from([timedelta(days=3), timedelta(seconds=1), timedelta(0)]),
)
limited = st.builds(
    Workflow,
    rest=st.sampled_from([True, True, False]),
    grace=graces,
    dry_run=st.booleans(),
    no_sweep=st.booleans(),
    accept_loss=st.booleans(),
    max_requests=st.none() | st.integers(1, 40),
)
faults = st.lists(
    st.builds(
        Fault,
        kind=st.sampled_from(
            [
                "status",
                "reset",
                "html",
                "wrong-shape",
                "expired",
                "stored-but-failed",
                "lost-answer",
                "gone",
                "truncated",
                "repeat",
                "omit",
                "total",
            ]
        ),
        request=st.sampled_from(
            ["any", "list", "look-up", "download", "reserve", "upload", "finalize", "delete"]
        ),
        status=st.sampled_from([500, 503, 429]),
        retry_after=st.sampled_from([None, 0]),
        nth=st.integers(1, 8),
        times=st.sampled_from([1, 2, 10]),
    ),
    min_size=1,
    max_size=3,
)


class _LongWatcher(Watcher):
    """A watcher that also knows which generations have come and gone between runs."""

    def __init__(self, cache: ActionsCache, ever: dict[int, Entry]) -> None:
        super().__init__(cache)
        self._ever = ever

    def _remember_who_was_newest(self) -> None:
        there, self._entries = self._entries, {**self._entries, **self._ever}
        super()._remember_who_was_newest()
        self._entries = there


class SimulatedWorld(RuleBasedStateMachine):
    """One cache, and everybody who uses it."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.world = site.world
        self.world.now = START
        self.skew = timedelta(0)
        self.contents = Contents()
        self.known = Known([Ledger(self.contents) for _ in range(MEMORIES)])
        self.builds: list[Build] = []
        self.ending: Build | None = None
        """An export that ends when the run is about to delete its first blob."""
        self.exports: list[Build] = []
        """All builds, ended ones too."""
        self.last_blob: int | None = None
        """The last request that deleted a blob; the one after asks what builds have written."""
        self.swept: list[Entry] = []
        """What the run has deleted."""
        self.meanwhile: Meanwhile = {}
        self.problems: list[str] = []
        self.workflows: list[Workflow] = []
        self.turns: Turns | None = None
        self.requests = 0
        self.past: list[list[Entry]] = []
        """What there was before each request of a run."""
        self.first_blob: int | None = None
        """The first request that deleted a blob; the two before have looked what is new."""
        self.faulty = False
        self.kept: Kept | None = None
        self.keep_at: tuple[int, Memory] | None = None
        self.entries: dict[int, Entry] = {}
        self.written: set[int] = set()
        self.deleted: set[int] = set()
        self.evicted = False
        self.downloaded: set[Digest] = set()
        self.memory = 0
        self.ever: dict[int, Entry] = {}
        self.watchers = [_LongWatcher(self.cache, self.ever) for _ in range(2)]
        for memory in site.memories:
            memory.lose()
        self.do(ActionsCache.clear)
        self.world.running.observe(before=self.before, after=self.after)
        site.figures.counts["sequences"] += 1

    @property
    def cache(self) -> ActionsCache:
        return self.world.cache

    def do(self, action: Any) -> Any:
        """Do something to the cache, between two requests."""
        outcome = self.world.running.call(action)
        self.ever |= {entry.id: entry for entry in self.cache.entries()}
        return outcome

    # What builds do

    @initialize(
        quota=st.sampled_from([DEFAULT_QUOTA, DEFAULT_QUOTA, 6_000]),
        jobs=st.lists(jobs, min_size=1, max_size=4),
    )
    def begin(self, quota: int, jobs: list[Job]) -> None:
        self.cache.quota = quota
        for job in jobs:
            self.build(job)

    def begin_build(self, job: Job) -> Build:
        config = built(
            job.wanted, variant=job.variant, only_targets=job.only_targets, at=self.world.now
        )
        index = IndexId(Ref(job.ref), Scope(job.scope), job.signed)
        readable = tuple(dict.fromkeys((job.ref, MAIN)))
        build = Build(config, index, readable, self.cache, lists=job.lists)
        self.exports.append(build)
        return build

    def build(self, job: Job) -> None:
        """Build, as far as it goes for now; it may never go on."""
        self.world.passes(seconds=job.minutes * 60)
        build = self.begin_build(job)
        if job.steps is None:
            self.do(lambda _: build.finish())
        else:
            self.do(lambda _: build.proceed(job.steps or 0))
            self.builds.append(build)

    @rule(jobs=st.lists(jobs, min_size=1, max_size=3))
    def build_some(self, jobs: list[Job]) -> None:
        for job in jobs:
            self.build(job)

    @rule(job=jobs, passed=passing)
    def build_later(self, job: Job, passed: int) -> None:
        self.world.passes(seconds=passed)
        self.build(job)

    @rule(which=numbers)
    def finish_a_build(self, which: int) -> None:
        # No precondition: requests at the same time come in any order, so it might hold only once.
        if not self.builds:
            return
        build = self.builds.pop(which % len(self.builds))
        self.do(lambda _: build.finish())

    @rule(ref=refs, scope=st.sampled_from(SCOPES))
    def import_(self, ref: str, scope: str) -> None:
        """Begin a build: read the newest index, and use what it leads to for a while."""
        index = IndexId(Ref(ref), Scope(scope))
        entry = read_by_builders(self.cache.entries(), index)
        if entry:
            usable = usable_in(entry.content)
            self.known.imports.append(Import(index, entry.id, usable, self.world.now))
            found = self.do(lambda c: c.look_up([ref], str(index), [str(index)], entry.version))
            assert found.id == entry.id

    # What others do

    def evict_entry(self, entry: Entry) -> None:
        self.do(lambda cache: cache.evict(entry.id))

    @rule(which=numbers, several=st.integers(1, 4))
    def evict(self, which: int, several: int) -> None:
        """Let the host evict entries of any kind."""
        for _ in range(several):
            entries = self.cache.entries()
            if entries:
                self.evict_entry(entries[which % len(entries)])

    @rule(ref=refs, scope=st.sampled_from(SCOPES), all_of_them=st.booleans())
    def evict_generations(self, ref: str, scope: str, all_of_them: bool) -> None:
        """Let the host evict the generations of an index, or the newest."""
        index = IndexId(Ref(ref), Scope(scope))
        found = [entry for entry in self.cache.entries() if index_of(entry) == index]
        for entry in found if all_of_them else found[-1:]:
            self.evict_entry(entry)

    @rule(which=numbers, several=st.integers(1, 3))
    def lose_content(self, which: int, several: int) -> None:
        """Let the storage lose the content of blobs whose entries stay."""
        for number in range(several):
            found = [e for e in self.cache.entries() if blobs_in([e], [e.ref]) and not e.lost]
            if found:
                entry = found[(which + number) % len(found)]
                self.do(lambda cache, entry=entry: cache.lose(entry.id))

    @rule(ref=st.sampled_from(PULLS))
    def close(self, ref: str) -> None:
        """Close a pull request: its entries go."""
        for entry in self.cache.entries():
            if entry.ref == ref:
                self.evict_entry(entry)

    @rule(which=st.sampled_from(_OTHERS), ref=refs)
    def store_something_else(self, which: tuple[str, str | None], ref: str) -> None:
        """Let another tool, or somebody who means harm, store an entry."""
        key, version = which
        more = {"version": version} if version else {}
        if not any(entry.key == key and entry.ref == ref for entry in self.cache.entries()):
            self.do(lambda c: c.put(key, b"{}", ref=ref, **more))

    @rule(scope=st.sampled_from(SCOPES), content=st.sampled_from([b"", b'{"layers":[{}]}']))
    def store_a_bad_index(self, scope: str, content: bytes) -> None:
        """Let somebody write an index that importers refuse."""
        index = IndexId(Ref(MAIN), Scope(scope))
        taken = [e.key for e in self.cache.entries()] + [key for _, key in self.cache.reserved]
        key = next(k for n in range(1, 100) if (k := str(index.key(n))) not in taken)
        self.do(lambda c: c.put(key, content, ref=MAIN))

    @rule(ref=refs, scope=st.sampled_from(SCOPES))
    def store_an_unreadable_index(self, ref: str, scope: str) -> None:
        """Let a build write an index whose content is lost at once."""
        self.lose_an_index(ref, scope)

    def lose_an_index(self, ref: str, scope: str) -> str:
        """Write an index whose content is lost at once; give its key."""
        index = IndexId(Ref(ref), Scope(scope))
        taken = [e.key for e in self.cache.entries()] + [key for _, key in self.cache.reserved]
        key = next(k for n in range(1, 100) if (k := str(index.key(n))) not in taken)
        entry = self.do(lambda c: c.put(key, b"{}", ref=ref))
        self.do(lambda c: c.lose(entry.id))
        return key

    @rule(
        passed=passing,
        skew=st.sampled_from([0, 0, 0, 9, -1]),
    )
    def time_passes(self, passed: int, skew: int) -> None:
        """Let time pass; the clocks of runs are not quite that of the service."""
        self.world.passes(seconds=passed)
        self.skew = timedelta(minutes=skew)

    @rule(which=st.integers(0, MEMORIES - 1))
    def lose_a_memory(self, which: int) -> None:
        self.site.memories[which].lose()
        self.known.ledgers[which].lose()
        self.known.checks.lose(which)

    # What runs do

    @rule(workflow=workflows, memory=st.integers(0, MEMORIES - 1), passed=passing)
    def collect(self, workflow: Workflow, memory: int, passed: int) -> None:
        self.world.passes(seconds=passed)
        self.run(workflow, memory, complete=workflow.generation_gap > 1 or workflow.rest)

    @rule(workflow=workflows, memory=st.integers(0, MEMORIES - 1), evict=st.lists(numbers))
    def collect_around_evictions(self, workflow: Workflow, memory: int, evict: list[int]) -> None:
        """Run, lose indexes, run again: what the first run has read is remembered."""
        self.collect(workflow, memory, passed=0)
        for which in evict:
            indexes = [entry for entry in self.cache.entries() if index_of(entry)]
            if indexes:
                self.evict_entry(indexes[which % len(indexes)])
        self.collect(workflow, memory, passed=0)

    @rule(workflow=workflows, memory=st.integers(0, MEMORIES - 1), scope=st.sampled_from(SCOPES))
    def collect_until_doubt_ends(self, workflow: Workflow, memory: int, scope: str) -> None:
        """Meet an index that can never be read: after a grace period, and a day at least, it blocks
        nothing, where the run can write, and as long as it can read another one.
        """
        key = self.lose_an_index(MAIN, scope)
        for _ in range(2):
            self.collect(workflow, memory, passed=0)
            self.world.passes(seconds=max(workflow.grace, _A_DAY).total_seconds() + 1_200)
        report = self.run(workflow, memory, complete=False)
        can_end = workflow.ref == MAIN and any(
            index_of(entry) and not entry.lost and entry.content and len(entry.content) > 100
            for entry in self.cache.entries()
            if entry.ref == MAIN
        )
        if can_end and report.status == "done" and report.blocked:
            assert key not in report.blocked.sentence, report.blocked.sentence
        self.site.figures.counts["doubts ended"] += 1

    @rule(workflow=limited, memory=st.integers(0, MEMORIES - 1))
    def collect_within_limits(self, workflow: Workflow, memory: int) -> None:
        self.run(workflow, memory, complete=False)

    @rule(workflow=limited, memory=st.integers(0, MEMORIES - 1), faults=faults)
    def collect_in_trouble(self, workflow: Workflow, memory: int, faults: list[Fault]) -> None:
        self.faulty = True
        self.world.running.inject(FaultPlan(tuple(faults)))
        try:
            self.run(workflow, memory, complete=False)
        finally:
            self.world.running.inject()
            self.faulty = False

    @rule(
        workflow=workflows,
        memory=st.integers(0, MEMORIES - 1),
        meanwhile=happenings,
        passed=passing,
    )
    def collect_while_others_work(
        self, workflow: Workflow, memory: int, meanwhile: Meanwhile, passed: int
    ) -> None:
        """Run, while builds go on and the host evicts between two requests."""
        self.world.passes(seconds=passed)
        self.meanwhile = meanwhile
        try:
            self.run(workflow, memory, complete=workflow.generation_gap > 1 or workflow.rest)
        finally:
            self.meanwhile = {}

    @rule(
        workflow=workflows,
        memory=st.integers(0, MEMORIES - 1),
        job=jobs,
        passed=passing,
        killed=st.booleans(),
    )
    def collect_while_an_export_ends(
        self, workflow: Workflow, memory: int, job: Job, passed: int, killed: bool
    ) -> None:
        """Run, while an export that has listed what it needs writes its index during the sweep.

        Before, a build with the same layers may have been killed, so that no index has them.
        """
        if killed:
            self.build(replace(job, lists=False, steps=12))
        self.world.passes(seconds=passed)
        export = self.ending = self.begin_build(replace(job, lists=True))
        self.do(lambda _: export.proceed())
        try:
            self.run(workflow, memory, complete=workflow.generation_gap > 1 or workflow.rest)
        finally:
            self.ending = None
        if not export.done:
            self.builds.append(export)

    @rule(
        first=workflows,
        second=workflows,
        turns=st.lists(st.integers(1, 9), max_size=8),
        meanwhile=happenings,
    )
    def collect_twice_at_once(
        self,
        first: Workflow,
        second: Workflow,
        turns: list[int],
        meanwhile: Meanwhile,
    ) -> None:
        """Run twice at once, each with its own memory."""
        self.begin_runs([first, second])
        self.meanwhile = meanwhile
        before = self.do(ActionsCache.entries)
        ledgers = self.known.ledgers
        owed = [ledgers[who].begin(before, flow) for who, flow in enumerate((first, second))]
        self.turns, self.memory = Turns(turns), 0
        try:
            self.site.runner.run_both(
                self.turns,
                (first, self.site.memories[0]),
                (second, self.site.memories[1]),
                self.world.now + self.skew,
            )
        finally:
            self.turns = None
            self.meanwhile = {}
        after = self.do(ActionsCache.entries)
        for who, flow in enumerate((first, second)):
            self.problems += ledgers[who].end(
                owed[who],
                before,
                after,
                flow,
                complete=False,
                written=self.written,
                deleted=self.deleted,
                past=self.past,
            )
        self.site.figures.counts["runs"] += 2
        self.check()

    @rule(workflow=workflows, memory=st.integers(0, MEMORIES - 1), at=st.integers(1, 30))
    def collect_again_after_a_crash(self, workflow: Workflow, memory: int, at: int) -> None:
        """Kill a run before one of its requests, and run again: this ends like an undisturbed run.

        The undisturbed run comes first; then all is put back to that moment.
        """
        held = self.site.memories[memory]
        self.keep_at = at, held
        self.evicted = False
        try:
            self.run(workflow, memory, complete=workflow.generation_gap > 1 or workflow.rest)
        finally:
            self.keep_at = None
        kept, self.kept = self.kept, None
        if kept is None:
            return
        undisturbed = self.outcome()
        self.restore(kept)
        held.replace(self.site.spare)
        self.run(workflow, memory, complete=workflow.generation_gap > 1 or workflow.rest)
        if self.evicted:
            return  # The host has interfered, because an index was more than the quota allows.
        again = self.outcome()
        # What the killed run has looked up was used, as far as the next one knows: it may keep
        # superseded indexes for a grace period more.
        kept_longer = {one for one in again - undisturbed if one[1].startswith("index-")}
        # It is the second look at an index without content: without a grace period that is given
        # up, and no blob is kept for it any longer.
        has_doubts = any(one[2] == b"{}" for one in undisturbed)
        gone = undisturbed - again if has_doubts else set()
        assert again == (undisturbed | kept_longer) - gone, (
            f"I5: {again - undisturbed} for {undisturbed - again}"
        )
        self.site.figures.counts["crashes"] += 1

    def run(self, workflow: Workflow, memory: int, *, complete: bool) -> Report:
        """Do a run, and check what it owes to builds."""
        self.begin_runs([workflow])
        self.memory = memory
        ledger = self.known.ledgers[memory]
        before = self.do(ActionsCache.entries)
        owed = ledger.begin(before, workflow)
        now = self.world.now + self.skew
        checks = self.known.checks
        due = checks.due(before, workflow, memory, self.world.now, self.cache.quota)
        alone = not self.meanwhile
        report = self.site.runner.run(workflow, self.site.memories[memory], now)
        checks.note(memory, self.downloaded, self.world.now)
        after = self.do(ActionsCache.entries)
        complete = complete and is_complete(report)
        self.problems += ledger.end(
            owed,
            before,
            after,
            workflow,
            complete=complete,
            written=self.written,
            deleted=self.deleted,
            past=self.past,
        )
        if complete and self.last_blob and self.last_blob < len(self.past):
            self.problems += unhealed(self.past[self.last_blob], after, self.swept, workflow)
        self.site.figures.counts["healed indexes"] += sum(
            action.kind == "write" and "during the sweep" in action.sentence
            for action in report.actions
        )
        self.site.figures.counts["deferred sweeps"] += bool(
            report.blocked and report.blocked.by_export
        )
        if complete and alone:
            self.check_contents(due)
        self.site.figures.counts["runs"] += 1
        self.site.figures.counts["complete runs"] += complete
        self.check()
        return report

    def check_contents(self, due: set[Digest]) -> None:
        """Check that nothing that the run wrote names what cannot be downloaded."""
        for entry in self.cache.entries():
            index = index_of(entry)
            if index and entry.id in self.written - {one.id for one in self.began}:
                named = {blob for _, blobs, _ in usable_in(entry.content) for blob in blobs}
                self.problems += [
                    f"{entry.key} names {blob}, which cannot be downloaded" for blob in named & due
                ]
        self.site.figures.counts["contents lost"] += len(due)

    def begin_runs(self, workflows: list[Workflow]) -> None:
        self.world.passes(milliseconds=1)  # No two runs begin at the same time.

        def begin(cache: ActionsCache) -> None:
            self.workflows = workflows
            self.requests = 0
            self.past = []
            self.first_blob = self.last_blob = None
            self.swept = []
            self.exports = [one for one in self.exports if not one.done]
            self.downloaded = set()
            self.entries = {entry.id: entry for entry in cache.entries()}
            self.began = list(self.entries.values())
            for watcher, workflow in zip(self.watchers, workflows, strict=False):
                grace = max(workflow.grace - SKEW, timedelta(0))
                watcher.begin(grace=grace, readable=workflow.readable)

        self.do(begin)

    def check(self) -> None:
        problems = self.problems + [p for watcher in self.watchers for p in watcher.problems]
        assert problems == [], "\n".join(problems)

    def outcome(self) -> set[tuple[str, str, bytes]]:
        """Return what the cache holds, but for the numbers of the generations and their times."""
        told = set()
        for entry in self.do(ActionsCache.entries):
            index = index_of(entry)
            told.add((entry.ref, str(index or entry.key), (index and entry.content) or b""))
        return told

    def restore(self, kept: Kept) -> None:
        """Put the cache and what is known back; ids are not used again."""

        def put_back(cache: ActionsCache) -> None:
            last_id = cache._last_id
            vars(cache).update(kept.state)
            cache._last_id = last_id

        self.do(put_back)
        self.known = kept.known
        self.known.ledgers = [
            Ledger(self.contents, one.owed, one.excused) for one in kept.known.ledgers
        ]

    # What is seen

    def before(self, request: Request) -> None:
        """Do what happens before a request is carried out."""
        self.requests += 1
        self.site.figures.counts["requests"] += 1
        if self.keep_at and self.keep_at[0] == self.requests:
            self.keep()
        for what in self.meanwhile.pop(self.requests, ()):
            self.let_others_work(what)
        if self.ending and request.kind == "delete" and self.deletes_a_blob(request):
            self.ending.finish()
            self.ending = None
        for number, watcher in enumerate(self.watchers[: len(self.workflows)]):
            if self.is_by(number):
                watcher.before(request)
            else:
                watcher._look()
        self.entries = {entry.id: entry for entry in self.cache.entries()}
        self.past.append(list(self.entries.values()))
        self.ever |= self.entries

    def after(self, request: Request) -> None:
        """Check all promises after a request."""
        for number, watcher in enumerate(self.watchers[: len(self.workflows)]):
            if self.is_by(number):
                watcher.after(request)
            else:
                watcher._look()
        key = parse_key(request.key or "")
        if request.kind == "download" and isinstance(key, BlobKey):
            self.downloaded.add(key.digest)
        entries = {entry.id: entry for entry in self.cache.entries()}
        self.written |= entries.keys() - self.entries.keys()
        for gone in self.entries.keys() - entries.keys():
            if request.kind == "delete":
                self.deleted.add(gone)
                self.check_deleted(self.entries[gone], list(entries.values()))
            else:
                self.evicted = True
        self.entries = entries

    def deletes_a_blob(self, request: Request) -> bool:
        entry = self.cache.get(int(request.path.rsplit("/", 1)[1]))
        return entry is not None and entry.key.startswith("buildkit-blob-")

    def is_by(self, number: int) -> bool:
        return number == (self.turns.who if self.turns else 0)

    def check_deleted(self, deleted: Entry, after: list[Entry]) -> None:
        self.site.figures.counts["deletions"] += 1
        self.swept.append(deleted)
        workflow = self.workflows[self.turns.who if self.turns else 0]
        ledger = self.known.ledgers[self.memory or (self.turns.who if self.turns else 0)]
        if lost := lost_by(deleted, self.began, after, ledger, self.deleted):
            self.problems.append(f"I3: {deleted.key} was deleted with {lost}")
        if deleted.lost:
            return
        if self.first_blob is None and deleted.key.startswith("buildkit-blob-"):
            self.first_blob = self.requests
        if deleted.key.startswith("buildkit-blob-"):
            self.last_blob = self.requests
        if self.first_blob and not self.turns and not self.faulty:
            seen = self.past[max(self.first_blob - 3, 0)]
            # With no grace period, a look-up before the run looked again, having waited, is over.
            waited = workflow.export_wait and not workflow.grace
            told = come_meanwhile(
                deleted,
                began=self.began,
                listed=self.past[0],
                seen=seen,
                written=self.written,
                workflow=workflow,
            )
            if told and not waited:
                self.problems.append(f"I1: {deleted.key} was deleted, but {told}")
            for export in self.exports:
                if counts_visibly(export, deleted, seen, self.world.now, workflow):
                    self.problems.append(f"I1: {deleted.key} was deleted during an export")
        there = {entry.id for entry in self.began}
        imports = [one for one in self.known.imports if one.entry in there]
        if taken := taken_from(imports, deleted, after, self.world.now, workflow):
            self.problems.append(f"I1: {deleted.key} was deleted, which {taken} need")

    def let_others_work(self, what: int | Job) -> None:
        """Do a whole build, take one further, or evict something."""
        if isinstance(what, Job):
            self.world.passes(seconds=1)
            self.begin_build(what).finish()
            return
        entries = self.cache.entries()
        if self.builds and what % 3:
            build = self.builds[what % len(self.builds)]
            build.proceed(1 + what // 3)
            if build.done:
                self.builds.remove(build)
        elif entries and what < 10:
            self.cache.evict(entries[what * 7 % len(entries)].id)

    def keep(self) -> None:
        """Keep what a process would leave behind that is killed now."""
        assert self.keep_at
        self.keep_at[1].copy(self.site.spare)
        state = {name: copy(value) for name, value in vars(self.cache).items()}
        state["_uploads"] = deepcopy(self.cache._uploads)
        ledgers = [
            Ledger(self.contents, dict(one.owed), set(one.excused)) for one in self.known.ledgers
        ]
        checks = Checks(dict(self.known.checks.last))
        self.kept = Kept(state, Known(ledgers, list(self.known.imports), checks))

    def teardown(self) -> None:
        self.world.running.observe()


def is_complete(report: Report) -> bool:
    """Return whether a run could do all that it had to."""
    return (
        report.status == "done"
        and not report.dry_run
        and not report.notes
        and not any("could not be read" in action.sentence for action in report.actions)
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("simulated")
    with a_world(folder) as world:
        figures = Figures()
        memories = Memory.make(folder, MEMORIES)
        yield Site(world, Runner(world.running), memories, folder / "spare.db", figures)
    sys.stdout.write(f"\nsimulated world: {figures}\n")


@pytest.mark.parametrize(
    "part", [0, *(pytest.param(part, marks=pytest.mark.soak) for part in (1, 2, 3))]
)
def test_whatever_happens_in_whatever_order_no_promise_is_broken(site: Site, part: int) -> None:
    _simulate(site, sequences=examples(few=8, many=12), steps=12, begin=part)


@pytest.mark.soak
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("part", range(4))
def test_whatever_happens_in_thousands_of_sequences_no_promise_is_broken(
    site: Site, part: int
) -> None:
    _simulate(site, sequences=750, steps=16)


def _simulate(site: Site, *, sequences: int, steps: int, begin: int | None = None) -> None:
    """Simulate so many sequences: the same ones each time and others for each beginning, if any."""

    class Machine(SimulatedWorld):
        def __init__(self) -> None:
            super().__init__(site)

    if begin is not None:
        seed(begin)(Machine)

    run_machine(
        Machine,
        settings=settings(
            max_examples=sequences,
            stateful_step_count=steps,
            report_multiple_bugs=False,
            # Explaining a failure takes longer than finding it: the sequence says it all.
            phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
