"""Deletions that are under way at once: in the order of their ranks, and each for itself."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintainer.budget import Budget
from maintainer.cacheconfig import NO_REF, BlobKey, Digest, IndexId, Scope, UploadKey
from maintainer.emulator import Fault, FaultPlan
from maintainer.errors import EntryError, StoreError
from maintainer.mark import mark
from maintainer.model.decision import DeleteEntry, Deletion, RewriteResult
from maintainer.model.entry import KnownEntry
from maintainer.model.marks import State
from maintainer.model.outcome import AlreadyGone, Deferred, Done, Failed, Outcome, Refused, Skipped
from maintainer.model.reason import EarlierFailure, NotMarked, Reason
from maintainer.model.store import Abilities
from maintainer.progress import Unwatched
from maintainer.settings import Settings
from maintainer.stores.base import RunContext, Since
from maintainer.sweep import Sweeper
from tests.integration.small import NO_GRACE
from tests.integration.world import START, World, a_world, blob_of
from tests.snapshots import a_snapshot
from tests.stores.memory import MemoryStore, Vault

AT_ONCE = 4
SUPERSEDED, BLOB, UPLOAD = State.SUPERSEDED, State.DANGLING, None
"""Three ranks, in their order."""
Kind = State | None
_INDEXES = [IndexId(NO_REF, Scope(name)) for name in ("api", "web")]


@dataclass(frozen=True)
class Step:
    """An entry to delete, and what the store does about it."""

    kind: Kind
    waits: int = 1
    """How many other things happen before it answers."""
    fails: bool = False
    is_refused: bool = False
    """Whether it alone cannot be deleted."""
    is_there: bool = True


class SlowStore(MemoryStore):
    """A store in memory that takes its time, and notes which deletions are under way."""

    abilities = Abilities(max_concurrent_deletions=AT_ONCE)

    def __init__(self, steps: list[Step]) -> None:
        names = {f"entry {place}" for place, step in enumerate(steps) if step.is_there}
        self.vault = Vault(dict.fromkeys(names, START))
        super().__init__(self.vault)
        self._steps = steps
        self.began: list[int] = []
        self.under_way: list[frozenset[int]] = [frozenset()]
        """After each begin and end."""

    async def delete(self, entry: KnownEntry, context: RunContext) -> bool:
        """Delete an entry after a while; raises StoreError if that is to fail."""
        self.requests.count("delete", again=False)
        step = self._steps[entry.store_id]
        self.began.append(entry.store_id)
        self.under_way.append(self.under_way[-1] | {entry.store_id})
        try:
            for _ in range(step.waits):
                await anyio.lowlevel.checkpoint()
            if step.fails:
                raise StoreError("no room")
            if step.is_refused:
                raise EntryError("not this one")
            return await super().delete(entry, context)
        finally:
            self.under_way.append(self.under_way[-1] - {entry.store_id})


@dataclass
class Sweep:
    """A sweep of some entries; their places are their positions in the plan."""

    steps: list[Step]
    requests: int | None = None
    """How many it may send."""
    after: frozenset[IndexId] = frozenset()
    """The indexes that must have been rewritten before."""
    store: SlowStore = field(init=False)
    results: dict[int, Deletion] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.steps = sorted(self.steps, key=lambda step: _delete(0, step).rank)
        self.store = SlowStore(self.steps)
        settings = Settings.defaults().model_copy(update={"max_requests": self.requests})
        self.budget = Budget(self.store.requests, settings, lambda: START)
        context = RunContext(settings, self.budget, Unwatched(), lambda: START, anyio.sleep)
        since = Since(mark(a_snapshot().build()), {}, (), lambda _: {})
        self.sweeper = Sweeper(self.store, since, context)

    async def begin(self) -> None:
        planned = {place: _delete(place, step, self.after) for place, step in enumerate(self.steps)}
        await self.sweeper.sweep(planned, self.results)

    def run(self) -> list[Outcome]:
        """Sweep; return what has become of each entry."""
        anyio.run(self.begin)
        assert sorted(self.results) == list(range(len(self.steps)))
        return [self.results[place].outcome for place in range(len(self.steps))]

    def rank(self, place: int) -> int:
        return _delete(place, self.steps[place]).rank


def _delete(place: int, step: Step, after: frozenset[IndexId] = frozenset()) -> DeleteEntry:
    name = f"entry {place}"
    parsed = UploadKey(name) if step.kind is UPLOAD else BlobKey(blob_of(name))
    entry = KnownEntry(
        store_id=place,
        ref=NO_REF,
        key=name,
        parsed=parsed,
        size=1,
        created_at=START,
        last_accessed_at=START,
        known_before=True,
        unreferenced_since=None,
        state="",
        reason=NotMarked(),
    )
    return DeleteEntry(entry, step.kind or BLOB, NotMarked(), after)


def _kinds(outcomes: list[Outcome]) -> list[type[Outcome]]:
    return [type(outcome) for outcome in outcomes]


def test_the_first_of_each_rank_goes_alone_and_the_others_at_once() -> None:
    sweep = Sweep([Step(SUPERSEDED, waits=3)] * 6 + [Step(BLOB, waits=3)] * 3)

    assert _kinds(sweep.run()) == [Done] * 9
    at_once = [len(places) for places in sweep.store.under_way]
    assert at_once[:3] == [0, 1, 0]
    assert max(at_once) == AT_ONCE
    assert sweep.store.began == list(range(9))


def test_a_rank_waits_until_all_of_the_one_before_have_ended() -> None:
    sweep = Sweep([Step(SUPERSEDED), Step(SUPERSEDED, waits=50), *[Step(BLOB)] * 5, Step(UPLOAD)])

    sweep.run()

    for places in sweep.store.under_way:
        assert len({sweep.rank(place) for place in places}) <= 1


def test_nothing_goes_at_once_until_one_entry_is_gone() -> None:
    sweep = Sweep([Step(BLOB, fails=True), *[Step(BLOB)] * 9])

    outcomes = sweep.run()

    assert _kinds(outcomes) == [Failed] + [Skipped] * 9
    assert outcomes[1] == Skipped(EarlierFailure())
    assert sweep.store.began == [0]


def test_an_entry_that_alone_is_refused_ends_nothing_and_is_no_success() -> None:
    steps = [Step(BLOB, is_refused=True), Step(BLOB, is_refused=True), *[Step(BLOB, waits=3)] * 5]
    steps += [Step(BLOB, is_refused=True), Step(UPLOAD)]

    sweep = Sweep(steps)

    assert _kinds(sweep.run()) == [Refused] * 2 + [Done] * 5 + [Refused, Done]
    assert [len(places) for places in sweep.store.under_way][:6] == [0, 1, 0, 1, 0, 1]
    assert max(map(len, sweep.store.under_way)) == AT_ONCE


def test_refusals_of_the_first_ones_alone_do_not_make_all_others_wait_for_each_other() -> None:
    sweep = Sweep([Step(BLOB, is_refused=True, waits=3)] * 9 + [Step(BLOB, waits=3)] * 9)

    assert _kinds(sweep.run()) == [Refused] * 9 + [Done] * 9
    assert max(map(len, sweep.store.under_way[:14])) == AT_ONCE


@pytest.mark.parametrize("has_deleted", [True, False])
def test_many_refusals_end_a_sweep_that_has_deleted_nothing(*, has_deleted: bool) -> None:
    steps = [Step(SUPERSEDED, is_there=has_deleted), *[Step(BLOB, is_refused=True)] * 20]
    sweep = Sweep([*steps, Step(UPLOAD)])
    sweep.store.abilities = replace(SlowStore.abilities, max_refusals=8)

    outcomes = sweep.run()

    tried = 20 if has_deleted else sum(one == Refused("not this one") for one in outcomes)
    assert 8 <= tried < 8 + AT_ONCE or has_deleted
    assert outcomes[1:] == [
        *[Refused("not this one")] * tried,
        *[Done() if has_deleted else Skipped(EarlierFailure())] * (21 - tried),
    ]


def test_those_under_way_end_when_another_fails_and_no_more_begin() -> None:
    steps = [Step(BLOB), Step(BLOB, fails=True), *[Step(BLOB, waits=9)] * 7]

    outcomes = Sweep(steps).run()

    assert _kinds(outcomes) == [Done, Failed, Done, Done, Done] + [Skipped] * 4


def test_a_refusal_after_a_failure_does_not_let_the_next_rank_begin() -> None:
    steps = [Step(SUPERSEDED), Step(SUPERSEDED, fails=True)]
    steps += [Step(SUPERSEDED, is_refused=True, waits=3), Step(BLOB)]

    assert _kinds(Sweep(steps).run()) == [Done, Failed, Refused, Skipped]


class _SlowRecheck:
    """Looks all entries but the first two up for so long that the second one is tried meanwhile."""

    def requests(self, entry: KnownEntry) -> int:
        """Return none."""
        del entry
        return 0

    async def veto(self, entry: KnownEntry) -> Reason | None:
        """Find nothing, after a while."""
        if entry.store_id > 1:
            await _turns(9)
        return None


def test_what_is_looked_up_while_another_fails_is_not_deleted() -> None:
    sweep = Sweep([Step(BLOB), Step(BLOB, fails=True), Step(BLOB), Step(BLOB)])
    sweep.sweeper.recheck = _SlowRecheck()

    assert _kinds(sweep.run()) == [Done, Failed, Skipped, Skipped]
    assert sweep.store.began == [0, 1]


@pytest.mark.parametrize("failed", _INDEXES, ids=str)
def test_what_two_indexes_referenced_stays_if_either_could_not_be_rewritten(
    failed: IndexId,
) -> None:
    sweep = Sweep([Step(BLOB)], after=frozenset(_INDEXES))
    sweep.sweeper.rewritten = {
        index: RewriteResult(index, None, (), "no room" if index == failed else None)
        for index in _INDEXES
    }

    assert _kinds(sweep.run()) == [Skipped]


def test_a_blob_without_content_goes_although_a_build_has_named_it_meanwhile() -> None:
    broken, whole = (Sweep([Step(kind)]) for kind in (State.WITHOUT_CONTENT, BLOB))
    for sweep in (broken, whole):
        sweep.sweeper.protected = frozenset({Digest(blob_of("entry 0"))})

    assert _kinds(broken.run()) == [Done]
    assert _kinds(whole.run()) == [Skipped]


def test_one_at_a_time_where_only_its_answer_shows_how_many_requests_remain() -> None:
    sweep = Sweep([Step(BLOB, waits=3)] * 5)
    sweep.store.requests.rate_limit_remaining = 1_000

    assert _kinds(sweep.run()) == [Done] * 5
    assert max(map(len, sweep.store.under_way)) == 1


def test_what_is_gone_is_known_when_a_sweep_is_cut_off() -> None:
    sweep = Sweep([Step(BLOB)] * 4 + [Step(BLOB, waits=10**9)] + [Step(BLOB)] * 9)

    async def cut_off() -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(sweep.begin)
                await _turns(200)
                scope.cancel()

    anyio.run(cut_off)

    gone = {place for place, one in sweep.results.items() if one.is_gone}
    assert gone == set(range(14)) - {4}
    assert set(sweep.store.vault.blobs) == {"entry 4"}


async def _turns(count: int) -> None:
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


_STEPS = st.lists(
    st.builds(
        Step,
        kind=st.sampled_from([SUPERSEDED, BLOB, UPLOAD]),
        waits=st.integers(0, 6),
        fails=st.sampled_from([False] * 9 + [True]),
        is_there=st.booleans(),
    ),
    max_size=30,
)


@given(_STEPS, st.none() | st.integers(1, 30))
def test_each_outcome_is_what_has_happened(steps: list[Step], requests: int | None) -> None:
    sweep = Sweep(steps, requests)

    outcomes = sweep.run()

    began = sweep.store.began
    assert began == sorted(set(began))
    assert len(began) == sweep.store.requests.total
    assert requests is None or len(began) <= requests
    for place, (step, outcome) in enumerate(zip(sweep.steps, outcomes, strict=True)):
        happened: type[Outcome] = Failed if step.fails else Done if step.is_there else AlreadyGone
        if place in began:
            assert isinstance(outcome, happened)
        else:
            assert isinstance(outcome, Skipped | Deferred)
        is_left = f"entry {place}" in sweep.store.vault.blobs
        assert is_left == (step.is_there and not isinstance(outcome, Done))
    # What was not tried comes after what was, and only for a reason.
    assert began == list(range(len(began)))
    failed = any(isinstance(outcome, Failed) for outcome in outcomes)
    spent = requests is not None and len(began) == requests
    assert len(began) == len(steps) or failed or spent
    for places in sweep.store.under_way:
        assert len({sweep.rank(place) for place in places}) <= 1
        assert len(places) <= AT_ONCE


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Scopes with superseded generations, of which none is to be rewritten."""
    with a_world(tmp_path) as world:
        for scope in ("one", "two", "three"):
            for _ in range(6):
                world.build("base", scope, scope=scope)
        for number in range(20):
            world.put("buildkit-blob-1-" + blob_of(f"orphan {number}"), size=10)
        world.passes(days=3)
        world.gc(no_sweep=True)
        world.passes(days=3)
        yield world


def test_what_supersedes_others_is_looked_up_once_for_each_index(world: World) -> None:
    report = world.gc(grace=NO_GRACE, verify_after=timedelta(0))

    deleted = [action for action in report.actions if action.kind == "delete"]
    assert {action.outcome_sentence for action in deleted} == {"done"}
    assert [action.subject.split("-")[0] for action in deleted] == sorted(
        (action.subject.split("-")[0] for action in deleted), reverse=True
    )
    superseded = sum(action.subject.startswith("index-") for action in deleted)
    assert superseded >= 15
    # Once as what supersedes others, and once as what the list may lack.
    assert world.requests["look-up"] == 2 * 3
    assert report.requests.counts["recheck"] == 3


def test_to_look_up_what_supersedes_others_takes_no_request_of_the_rest_api(world: World) -> None:
    one_left = Fault(kind="headers", headers={"x-ratelimit-remaining": "1"})
    world.running.inject(FaultPlan((one_left,)))

    report = world.gc(grace=NO_GRACE, rest_share=1)

    deleted = [one for one in report.actions if one.kind == "delete" and one.outcome == Done()]
    assert len(deleted) >= 15
    assert all(one.subject.startswith("index-") for one in deleted)
    assert any(isinstance(one.outcome, Deferred) for one in report.actions)


def test_a_report_lists_deletions_in_the_order_of_the_plan(world: World) -> None:
    plan = world.gc(grace=NO_GRACE, dry_run=True)
    world.passes(minutes=1)

    report = world.gc(grace=NO_GRACE)

    planned = [action.subject for action in plan.actions if action.kind == "delete"]
    assert [action.subject for action in report.actions if action.kind == "delete"] == planned
