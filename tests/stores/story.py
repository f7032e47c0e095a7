"""What may happen to a cache, and what its builders are owed after it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from hypothesis import strategies as st

from maintainer.model.reason import LeftForRoom
from maintainer.report.model import ActionReport
from tests.integration.world import blob_of
from tests.stores.place import IMAGES, STEPS, TOOLS, How, Place, Results

_IN_THE_WAY = (
    "holds the lock",
    "it is listed, but a look-up did not find it",
    # The other one has superseded it, and has no grace period.
    "it was written, but a look-up finds nothing",
    "was deleted while it was being read",
)
"""Why a run may fail while another one is under way."""
_A_WEEK = 7 * 24
"""Hours."""
_UNREADABLE = "no index could be read"
"""Why a run may fail where the only index is garbled."""
_SPENT = "of --max-requests are spent"
"""Why a run may fail where nothing can be decided before all tags are read."""
_IMPLAUSIBLE = "in two listings"
"""Why a run may fail that is guarded: it found too little of what it knew."""


@dataclass(frozen=True)
class Build:
    """A build exports."""

    image: str
    step: str
    other_form: bool = False


@dataclass(frozen=True)
class Layer:
    """A layer is stored alone, begun, evicted or spoiled."""

    what: str
    step: str


@dataclass(frozen=True)
class Garbled:
    """An export leaves an index that nobody can read."""

    image: str


@dataclass(frozen=True)
class Other:
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
    events: dict[int, "Event"] = field(default_factory=dict)


@dataclass(frozen=True)
class TwoRuns:
    """A run, and another that begins before one of its steps."""

    first: How
    second: How
    step: int


@dataclass(frozen=True)
class Killed:
    """A run that is killed before one of its steps."""

    how: How
    step: int


Event = Build | Layer | Garbled | Other | Passes | Run | TwoRuns | Killed

_steps = st.integers(1, 60)
_builds = st.builds(
    Build,
    image=st.sampled_from(IMAGES),
    step=st.sampled_from(STEPS),
    other_form=st.sampled_from([False, False, True]),
)
_layers = st.builds(
    Layer,
    what=st.sampled_from(["stored", "begun", "evicted", "spoiled"]),
    step=st.sampled_from([*STEPS, "x"]),
)
_others = st.builds(Other, name=st.sampled_from(TOOLS))
_garbled = st.builds(Garbled, image=st.sampled_from(IMAGES))
_graces = st.sampled_from([timedelta(0), timedelta(hours=1), timedelta(hours=24)])
_hows = st.builds(
    How,
    grace=_graces,
    dry_run=st.sampled_from([False, False, False, True]),
    no_sweep=st.sampled_from([False, False, False, True]),
    other_way=st.booleans(),
    room=st.sampled_from([False, False, False, True]),
    repair=st.sampled_from([False, False, False, True]),
    guarded=st.sampled_from([False, False, True]),
    requests=st.sampled_from([None, None, None, *range(5, 30)]),
    remembers=st.sampled_from([None, None, timedelta(0), timedelta(hours=1)]),
)
_runs = st.builds(
    Run,
    how=_hows,
    events=st.dictionaries(_steps, _builds | _layers | _others | _garbled, max_size=3),
)
events: st.SearchStrategy[Event] = st.one_of(
    _builds,
    _builds,
    _layers,
    _others | _garbled,
    st.builds(Passes, hours=st.sampled_from([1, 23, 25, 240])),
    _runs,
    _runs,
    st.builds(TwoRuns, first=_hows, second=_hows, step=_steps),
    st.builds(Killed, how=_hows, step=_steps),
)
_making_room = st.builds(How, grace=_graces, other_way=st.booleans(), room=st.just(True))
in_a_full_cache: st.SearchStrategy[Event] = st.one_of(
    _builds,
    st.builds(Passes, hours=st.sampled_from([1, 25, 200])),
    st.builds(Run, how=_making_room, events=st.dictionaries(_steps, _builds, max_size=2)),
    st.builds(Run, how=_making_room),
    st.builds(TwoRuns, first=_making_room, second=_hows, step=_steps),
    st.builds(Killed, how=_making_room, step=_steps),
    _layers,
)


@dataclass
class Offer:
    """What one export offers to builders, as far as it has never been lost since."""

    image: str
    results: Results
    at: int
    """The hour of its export."""


class Story:
    """Events in a place, each of which is checked, and what builders are owed."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._offers: list[Offer] = []
        self._hours = 0
        self._garbled = False

    def tell(self, *told: Event) -> None:
        """Let these things happen, one after the other."""
        for event in told:
            self._happen(event)
            assert self.place.problems() == []

    def _happen(self, event: Event) -> None:
        match event:
            case Build(image, step, other_form):
                self._build(image, step, other_form=other_form)
            case Layer(what, step):
                self._change_layer(what, step)
            case Garbled(image):
                self._garble(image)
                self._garbled = True
            case Other(name):
                self.place.store_other(name)
            case Passes(hours):
                self.place.passes(hours)
                self._hours += hours
            case Run(how, inner):
                self._run(how, inner)
            case TwoRuns(first, second, step):
                self._run_two(first, second, step)
            case Killed(how, step):
                self._kill(how, step)

    def _build(self, image: str, step: str, *, other_form: bool) -> None:
        results = self.place.build(image, step, other_form=other_form)
        if results is not None:
            self._replace(image)
            self._offers.append(Offer(image, results, self._hours))

    def _garble(self, image: str) -> None:
        self.place.garble(image)
        self._replace(image)

    def _replace(self, image: str) -> None:
        if self.place.replaces:
            self._offers = [one for one in self._offers if one.image != image]

    def _change_layer(self, what: str, step: str) -> None:
        match what:
            case "stored":
                self.place.store_layer(step)
            case "begun":
                self.place.begin_upload(step)
            case "evicted":
                self.place.evict(step)
                self._lose(step)
            case "spoiled":
                self.place.spoil(step)
                self._lose(step)

    def _lose(self, step: str) -> None:
        """Owe a layer no longer: indexes may have dropped what needs it before it comes back."""
        for offer in self._offers:
            offer.results = [one for one in offer.results if blob_of(step) not in one]

    def _run(self, how: How, inner: dict[int, Event]) -> None:
        def happens(event: Event) -> Callable[[], None]:
            return lambda: self.tell(event)

        how, earlier = self._with_limit(how), list(self._offers)
        report = self.place.run(how, {step: happens(event) for step, event in inner.items()})
        problems = " ".join(report.problems)
        excused = any(reason in problems for reason in (_UNREADABLE, _IMPLAUSIBLE, _SPENT))
        assert report.status == "done" or excused, problems
        gone = _blobs_of(one for one in report.deleted if isinstance(one.reason, LeftForRoom))
        self._let_leave(how, gone=gone)
        late = _blobs_of(report.deleted) if self.place.deletes_unconditionally else gone
        for offer in (one for one in self._offers if one not in earlier):
            # A build may look a blob up just before its deletion: SAFETY.md says when.
            offer.results = [one for one in offer.results if not one & late]

    def _run_two(self, first: How, second: How, step: int) -> None:
        first, second = self._with_limit(first), self._with_limit(second)
        for report in self.place.run_two(first, second, step):
            problems = " ".join(report.problems)
            reasons = (*_IN_THE_WAY, _UNREADABLE, _IMPLAUSIBLE, _SPENT)
            excused = any(reason in problems for reason in reasons)
            assert report.status == "done" or excused, problems
        self._let_leave(first, second)

    def _kill(self, how: How, step: int) -> None:
        """Let the run go on, and put back what it would have left: no clean-up can help it."""
        how = self._with_limit(how)
        kept: list[Callable[[], None]] = []
        self.place.run(how, {step: lambda: kept.append(self.place.keep())})
        for put_back in kept:
            put_back()
        self._let_leave(how)

    def _with_limit(self, how: How) -> How:
        """Set the limit of a run that makes room, by a plan that shows what would stay."""
        if not how.room:
            return how
        shown = self.place.run(replace(how, dry_run=True, no_sweep=False, limit=1), {}).room
        return replace(how, limit=max(shown.remaining - 1, 1) if shown else None)

    def _let_leave(self, *runs: How, gone: frozenset[str] = frozenset()) -> None:
        """Owe results no longer that have left to make room.

        What was exported within the grace period stays, and what was exported last, for a week.
        """
        left = self.place.departed() | gone
        grace = min(how.grace for how in runs) // timedelta(hours=1)
        for offer in self._offers:
            week = _A_WEEK if offer is self._offers[-1] else 0
            if self._hours - offer.at >= max(grace, week):
                offer.results = [one for one in offer.results if not one & left]

    def end(self) -> None:
        """Find all that is owed, and nothing to do in a second run."""
        last = How(timedelta(hours=24))
        self._run(last, {})
        if self._garbled:  # What it protected may go once it is repaired.
            self._run(last, {})
        for offer in self._offers:
            owed = {blob for result in offer.results for blob in result}
            assert owed <= self.place.usable(offer.image), f"I3: {offer.image}"
        before = self.place.everything()
        self._run(last, {})
        assert self.place.everything() == before
        assert self.place.problems() == []


def _blobs_of(deleted: Iterable[ActionReport]) -> frozenset[str]:
    """Return the blobs among what a run has deleted."""
    return frozenset(f"sha256:{one.subject[-64:]}" for one in deleted)
