"""What every store promises: builds, accidents, runs and kills in any order lose nothing.

I1, I2 and I4 are checked at every step of every run, I3 after each story, and with it that a run
which has nothing to do changes nothing. A store joins with a class `TestSomeStore(Contract)`
beside a fixture `begin`, which returns what makes an empty `Place` each time it is called.

A run is killed here as far as its store and its database can tell. `test_crashes.py` kills real
processes.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.world import blob_of
from tests.stores.place import IMAGES, How, Place, steps_up_to
from tests.stores.story import (
    Build,
    Event,
    Garbled,
    Killed,
    Layer,
    Other,
    Passes,
    Run,
    Story,
    TwoRuns,
    events,
    in_a_full_cache,
)

Begin = Callable[[], Place]
Found = tuple[set[str], list[set[str]]]
"""The layers that are stored, and those that builders of each image find."""

NO_GRACE = How(timedelta(0))
A_LOT_TO_DO: tuple[Event, ...] = (
    Build("api", "test"),
    Passes(1),
    Build("web", "web", other_form=True),
    Layer("stored", "x"),
    Layer("evicted", "test"),
    Other("toolchain"),
    Passes(240),
)
_UNUSED_FOR_DAYS: tuple[Event, ...] = (
    Build("api", "test"),
    Build("docs", "docs"),
    Run(How(timedelta(hours=24))),
    Passes(200),
    Build("web", "web"),
)
_RUN_LATER: tuple[Event, ...] = (Passes(1), Run(NO_GRACE))
# Every store runs the same test, each from a class of its own.
_suppressed = [HealthCheck.differing_executors, HealthCheck.too_slow]


def tell(begin: Begin, *told: Event) -> Place:
    """Tell a story in a new place, which is checked to its end."""
    story = Story(begin())
    story.tell(*told)
    story.end()
    return story.place


def _count_steps(begin: Begin, how: How) -> int:
    story = Story(begin())
    story.tell(*A_LOT_TO_DO)
    seen: list[int] = []
    story.place.run(how, {step: partial(seen.append, step) for step in range(1, 100)})
    return len(seen)


def _skip_after_the_last(steps: int, step: int) -> None:
    if step > steps:
        pytest.skip("runs on this store have fewer steps")


def _found_in(place: Place) -> Found:
    return place.stored(), [place.usable(image) for image in IMAGES]


def _one_in(count: int, steps: range) -> list[Any]:
    """Take one of so many steps in `make test`, and all of them in `make soak`."""
    return [
        pytest.param(step, marks=() if number % count == 0 else pytest.mark.soak)
        for number, step in enumerate(steps)
    ]


class Contract:
    """The tests that every store passes."""

    @settings(max_examples=8, suppress_health_check=_suppressed)
    @given(told=st.lists(events, min_size=2, max_size=12))
    def test_whatever_happens_in_whatever_order_no_promise_is_broken(
        self, begin: Begin, told: list[Event]
    ) -> None:
        tell(begin, *told)

    def test_once_a_garbled_index_is_repaired_there_is_nothing_to_do(self, begin: Begin) -> None:
        tell(begin, Build("api", "base"), Garbled("api"), Passes(240))

    @pytest.mark.soak
    @pytest.mark.timeout(7_200)
    @settings(max_examples=2_000, suppress_health_check=_suppressed)
    @given(told=st.lists(events, min_size=2, max_size=16))
    def test_whatever_happens_in_thousands_of_stories_no_promise_is_broken(
        self, begin: Begin, told: list[Event]
    ) -> None:
        tell(begin, *told)

    @settings(max_examples=3, suppress_health_check=_suppressed)
    @given(told=st.lists(in_a_full_cache, min_size=4, max_size=10))
    def test_whatever_leaves_a_full_cache_no_promise_is_broken(
        self, begin: Begin, told: list[Event]
    ) -> None:
        tell(begin, *_UNUSED_FOR_DAYS, *told)

    @pytest.mark.soak
    @pytest.mark.timeout(7_200)
    @settings(max_examples=1_000, suppress_health_check=_suppressed)
    @given(told=st.lists(in_a_full_cache, min_size=4, max_size=16))
    def test_whatever_leaves_in_a_thousand_full_caches_no_promise_is_broken(
        self, begin: Begin, told: list[Event]
    ) -> None:
        tell(begin, *_UNUSED_FOR_DAYS, *told)

    def test_what_leaves_a_full_cache_is_deleted_a_grace_period_later(self, begin: Begin) -> None:
        story = Story(begin())
        story.tell(*_UNUSED_FOR_DAYS, Run(How(timedelta(hours=24), room=True)))
        left = story.place.departed()
        assert left
        assert left <= story.place.stored()

        story.tell(Passes(25), Run(How(timedelta(hours=24), limit=1)))

        assert not left & story.place.stored()
        assert set(map(blob_of, steps_up_to("web"))) <= story.place.usable("web")

    @pytest.fixture(scope="class")
    @classmethod
    def steps(cls, begin: Begin) -> int:
        """Return how many steps a run has that has a lot to do, in the way that has more."""
        return max(_count_steps(begin, How(timedelta(0), other_way=way)) for way in (False, True))

    @pytest.mark.parametrize("step", _one_in(3, range(2, 50, 4)))  # in both ways
    def test_a_build_at_any_step_of_a_run_is_neither_hidden_nor_harmed(
        self, begin: Begin, steps: int, step: int
    ) -> None:
        _skip_after_the_last(steps, step)
        how = How(timedelta(0), other_way=step % 8 == 2)

        tell(begin, *A_LOT_TO_DO, Run(how, {step: Build("api", "docs")}))

    @pytest.mark.parametrize("step", _one_in(3, range(1, 50, 6)))  # in both ways
    def test_another_run_at_any_step_of_a_run_gets_in_nobodys_way(
        self, begin: Begin, steps: int, step: int
    ) -> None:
        _skip_after_the_last(steps, step)
        second = How(timedelta(0), other_way=step % 4 == 1)

        tell(begin, *A_LOT_TO_DO, TwoRuns(NO_GRACE, second, step))

    @pytest.fixture(scope="class")
    @classmethod
    def undisturbed(cls, begin: Begin) -> Found:
        """Return what builders find after a run that nobody killed."""
        return _found_in(tell(begin, *A_LOT_TO_DO, *_RUN_LATER))

    @pytest.mark.parametrize("step", _one_in(2, range(1, 36, 4)))
    def test_killed_at_any_step_a_run_can_simply_be_run_again(
        self, begin: Begin, undisturbed: Found, steps: int, step: int
    ) -> None:
        _skip_after_the_last(steps, step)
        place = tell(begin, *A_LOT_TO_DO, Killed(NO_GRACE, step), *_RUN_LATER)

        assert _found_in(place) == undisturbed

    @pytest.mark.parametrize("what", ["evicted", "spoiled"])
    def test_a_layer_lost_during_a_run_harms_nothing_else(self, begin: Begin, what: str) -> None:
        run = Run(NO_GRACE, {5: Layer(what, "api")})

        place = tell(begin, *A_LOT_TO_DO, run)

        assert set(map(blob_of, steps_up_to("web"))) <= place.usable("web")

    @pytest.mark.parametrize("image", IMAGES)
    def test_an_index_that_nobody_can_read_costs_no_other_image_its_layers(
        self, begin: Begin, image: str
    ) -> None:
        tell(begin, *A_LOT_TO_DO, Garbled(image), Run(NO_GRACE), Passes(25), Run(NO_GRACE))

    @pytest.mark.parametrize("other_way", [False, True])
    def test_what_an_index_referenced_in_vain_has_its_grace_period_once_it_is_overwritten(
        self, begin: Begin, *, other_way: bool
    ) -> None:
        day = How(timedelta(hours=24), other_way=other_way)
        on_top_of_what_is_lost = (Build("docs", "test"), Layer("evicted", "api"))
        overwritten = (Build("api", "lib"), Build("docs", "base"))

        tell(
            begin,
            *on_top_of_what_is_lost,
            Run(replace(day, dry_run=True)),
            Passes(25),
            *overwritten,
            Run(day),
        )

    def test_what_happens_between_two_steps_does_happen(self, begin: Begin) -> None:
        story = Story(begin())
        story.tell(*A_LOT_TO_DO)

        story.tell(Run(How(timedelta(hours=24)), {3: Build("docs", "docs")}))

        assert blob_of("docs") in story.place.usable("docs")
        assert set(map(blob_of, steps_up_to("docs"))) <= story.place.stored()
