"""What one index has that others lack: whatever they lack must remain, and nothing else."""

from collections.abc import Callable, Iterable

from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig import CacheConfig, Digest, Link, Record, Result, merge, prune
from maintainer.cacheconfig.difference import only_new, only_newer
from maintainer.cacheconfig.timestamps import Nanoseconds
from tests.worlds import BLOBS, any_index, builds_of_one_repository, describe, leads_to

_Compare = Callable[[CacheConfig, Iterable[CacheConfig]], CacheConfig]
BASE, OTHER_BASE, COPIED = BLOBS[:3]


def _normal(config: CacheConfig) -> CacheConfig:
    return prune(merge([config]), config.blobs)


def _build(
    *chain: Digest, made_at: int = 1, selector: str = "", source: str = "base"
) -> CacheConfig:
    """Make the index of a build with two steps, of which the second has a result."""
    layers = tuple(describe(blob, parent) for parent, blob in enumerate(chain, start=-1))
    result = Result((len(chain) - 1,), with_parents=True, created_at=Nanoseconds(made_at))
    steps = (Record(source, (), ()), Record("copy", (result,), ((Link(0, selector),),)))
    return _normal(CacheConfig(layers, steps))


@given(builds_of_one_repository(count=3))
def test_what_remains_leads_with_the_others_to_all_that_the_whole_leads_to(
    builds: list[CacheConfig],
) -> None:
    first, *others = map(_normal, builds)

    together = leads_to(merge([*others, only_new(first, others)]))

    assert together == leads_to(merge([*others, first]))


@given(any_index(), st.sampled_from([only_new, only_newer]))
def test_of_what_another_has_nothing_remains(config: CacheConfig, compare: _Compare) -> None:
    assert not compare(_normal(config), [_normal(config)]).records


def test_a_layer_on_other_layers_is_new() -> None:
    known = [_build(BASE, COPIED)]

    assert only_new(_build(OTHER_BASE, COPIED), known) == _build(OTHER_BASE, COPIED)


def test_what_another_key_leads_to_is_new() -> None:
    known = [_build(BASE, COPIED)]

    for other in (_build(BASE, COPIED, selector="/src"), _build(BASE, COPIED, source="newer base")):
        assert only_new(other, known) == other


def test_what_others_have_older_is_newer_but_not_new() -> None:
    known = [_build(BASE, COPIED, made_at=3), _build(BASE, COPIED, made_at=5)]

    assert only_newer(_build(BASE, COPIED, made_at=6), known) == _build(BASE, COPIED, made_at=6)
    assert not only_new(_build(BASE, COPIED, made_at=6), known).records
    assert not only_newer(_build(BASE, COPIED, made_at=5), known).records


def test_what_fewer_keys_lead_to_is_known_however_many_keys_one_step_has() -> None:
    known = [_copies(Link(0, "/more"))]

    assert not only_new(_copies(), known).records
    assert only_new(_copies(Link(0, "/other")), known) == _copies(Link(0, "/other"))
    assert only_new(_copies(), [_build(BASE)]) == _copies()


def _copies(*more: Link) -> CacheConfig:
    """Return an index of one step under a thousand keys, with further ways to satisfy each."""
    steps = [
        Record(
            "copy",
            (Result((0,), with_parents=True, created_at=Nanoseconds(1)),),
            ((Link(0, ""),), (Link(0, f"/{number}"), *more)),
        )
        for number in range(1_000)
    ]
    layers = (describe(BASE, -1),)
    return _normal(CacheConfig(layers, (Record("base", (), ()), *steps)))
