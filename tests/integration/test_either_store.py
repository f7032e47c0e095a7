"""Whatever stores a cache: builds, accidents and runs in any order break no promise.

I1, I2 and I4 are checked at every step of every run, I3 after each sequence, and with it that a run
which has nothing to do changes nothing. Runs that are killed have a suite of their own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.directories import begin_anew
from tests.integration.either_store import (
    IMAGES,
    OTHERS,
    STEPS,
    Folder,
    How,
    Owed,
    Place,
    Service,
    steps_up_to,
)
from tests.integration.simulated_runs import Memory
from tests.integration.world import a_world, blob_of

_IN_THE_WAY = ("holds the lock", "it is listed, but a look-up did not find it")
"""Why a run may fail while another one is under way."""


@dataclass(frozen=True)
class Build:
    """Somebody builds."""

    image: str
    step: str
    other_form: bool = False


@dataclass(frozen=True)
class Layer:
    """A layer is stored that nothing names, or is lost, or somebody begins to store it."""

    what: str
    step: str


@dataclass(frozen=True)
class Others:
    """Another tool stores something."""

    name: str


@dataclass(frozen=True)
class Passes:
    """Time passes."""

    hours: int


@dataclass(frozen=True)
class Run:
    """A run, and what happens before some of its steps."""

    how: How
    meanwhile: dict[int, "Event"] = field(default_factory=dict)


@dataclass(frozen=True)
class TwoRuns:
    """A run, and all of another before one of its steps."""

    first: How
    second: How
    step: int


Event = Build | Layer | Others | Passes | Run | TwoRuns

_steps = st.integers(1, 60)
_builds = st.builds(
    Build,
    image=st.sampled_from(IMAGES),
    step=st.sampled_from(STEPS),
    other_form=st.sampled_from([False, False, True]),
)
_layers = st.builds(
    Layer, what=st.sampled_from(["orphan", "lost", "begun"]), step=st.sampled_from([*STEPS, "x"])
)
_others = st.builds(Others, name=st.sampled_from(OTHERS))
_hows = st.builds(
    How,
    grace=st.sampled_from([timedelta(0), timedelta(hours=1), timedelta(hours=24)]),
    dry_run=st.sampled_from([False, False, False, True]),
    no_sweep=st.sampled_from([False, False, False, True]),
    other_way=st.booleans(),
)
_runs = st.builds(
    Run,
    how=_hows,
    meanwhile=st.dictionaries(_steps, _builds | _layers | _others, max_size=3),
)
_events: st.SearchStrategy[Event] = st.one_of(
    _builds,
    _builds,
    _layers,
    _others,
    st.builds(Passes, hours=st.sampled_from([1, 23, 25, 240])),
    _runs,
    _runs,
    st.builds(TwoRuns, first=_hows, second=_hows, step=_steps),
)


class Story:
    """What happens to a cache, and what is owed to those who have exported to it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._owed: list[Owed] = []

    def tell(self, event: Event) -> None:
        """Let something happen."""
        match event:
            case Build(image, step, other_form):
                self._build(image, step, other_form=other_form)
            case Layer("orphan", step):
                self.place.store_layer(step)
            case Layer("begun", step):
                self.place.begin_upload(step)
            case Layer(_, step):
                self._lose(step)
            case Others(name):
                self.place.store_others(name)
            case Passes(hours):
                self.place.passes(hours)
            case Run(how, meanwhile):
                self._run(how, meanwhile)
            case TwoRuns(first, second, step):
                for report in self.place.gc_twice(first, second, step):
                    problems = " ".join(report.problems)
                    in_the_way = any(reason in problems for reason in _IN_THE_WAY)
                    assert report.status == "done" or in_the_way, problems
        assert self.place.problems() == []

    def _build(self, image: str, step: str, *, other_form: bool) -> None:
        owed = self.place.build(image, step, other_form=other_form)
        if owed is None:
            return
        if self.place.only_newest_counts():
            self._owed = [one for one in self._owed if one.name != owed.name]
        self._owed.append(owed)

    def _lose(self, step: str) -> None:
        """Lose a layer; what needed it may have gone from the indexes before it comes back."""
        self.place.evict(step)
        for owed in self._owed:
            owed.results = [one for one in owed.results if blob_of(step) not in one]

    def _run(self, how: How, meanwhile: dict[int, Event]) -> None:
        def happens(event: Event) -> Callable[[], None]:
            return lambda: self.tell(event)

        report = self.place.gc(how, {step: happens(event) for step, event in meanwhile.items()})
        assert report.status == "done", report.problems

    def end(self) -> None:
        """Find all that is owed, and nothing to do in a second run."""
        last = How(timedelta(hours=24))
        self._run(last, {})
        for owed in self._owed:
            live = {blob for result in owed.results for blob in result}
            assert live <= self.place.leads_to(owed.name), f"I3: {owed.name}"
        before = self.place.all_of_it()
        self._run(last, {})
        assert self.place.all_of_it() == before
        assert self.place.problems() == []


Begin = Callable[[], Place]


@contextmanager
def _services(folder: Path) -> Iterator[Begin]:
    with a_world(folder) as world:
        memories = Memory.make(folder, 2)
        yield lambda: Service(world, memories)


@contextmanager
def _folders(folder: Path) -> Iterator[Begin]:
    numbers = count()
    yield lambda: Folder(begin_anew(folder, next(numbers)))


@pytest.fixture(scope="module", params=[_services, _folders], ids=["service", "directory"])
def begin(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Begin]:
    with request.param(tmp_path_factory.mktemp("places")) as begin:
        yield begin


def _tell(begin: Begin, events: list[Event]) -> Place:
    story = Story(begin())
    for event in events:
        story.tell(event)
    story.end()
    return story.place


_suppressed = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=25, suppress_health_check=_suppressed)
@given(events=st.lists(_events, min_size=2, max_size=12))
def test_whatever_happens_in_whatever_order_no_promise_is_broken(
    begin: Begin, events: list[Event]
) -> None:
    _tell(begin, events)


@pytest.mark.soak
@pytest.mark.timeout(7_200)
@settings(max_examples=2_000, suppress_health_check=_suppressed)
@given(events=st.lists(_events, min_size=2, max_size=16))
def test_whatever_happens_in_thousands_of_sequences_no_promise_is_broken(
    begin: Begin, events: list[Event]
) -> None:
    _tell(begin, events)


_A_LOT_TO_DO: list[Event] = [
    Build("api", "test"),
    Passes(1),
    Build("web", "web", other_form=True),
    Layer("orphan", "x"),
    Layer("lost", "test"),
    Others("toolchain"),
    Passes(240),
]


@pytest.mark.parametrize("step", range(2, 50, 4))
def test_a_build_at_any_step_of_a_run_is_neither_hidden_nor_harmed(begin: Begin, step: int) -> None:
    run = Run(How(timedelta(0), other_way=step % 2 == 0), {step: Build("api", "docs")})

    _tell(begin, [*_A_LOT_TO_DO, run])


@pytest.mark.parametrize("step", range(1, 50, 6))
def test_another_run_at_any_step_of_a_run_gets_in_nobodys_way(begin: Begin, step: int) -> None:
    two = TwoRuns(How(timedelta(0)), How(timedelta(0), other_way=step % 4 == 1), step)

    _tell(begin, [*_A_LOT_TO_DO, two])


def test_what_happens_between_two_steps_does_happen(begin: Begin) -> None:
    place = begin()
    story = Story(place)
    for event in _A_LOT_TO_DO:
        story.tell(event)

    story.tell(Run(How(timedelta(hours=24)), {3: Build("docs", "docs")}))

    assert blob_of("docs") in place.leads_to("docs")
    assert set(map(blob_of, steps_up_to("docs"))) <= place.stored()
