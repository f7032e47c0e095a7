"""The fingerprint of what a run depends on: the same for the same, another for anything else."""

from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as change

from maintainer.cacheconfig import Key, parse_key
from maintainer.model import fingerprint as module
from maintainer.model.decision import Keep
from maintainer.model.entry import Access, Listing, StoredEntry, StoreLimits, in_batches
from maintainer.model.fingerprint import fingerprint
from maintainer.model.reason import NotADigest, Unrecognized
from maintainer.model.store import Abilities
from tests.snapshots import MAIN, NOW, PULL, RELEASE, blob_key

A_MOMENT = timedelta(microseconds=1)


def _parse(key: str) -> Key:
    return parse_key(key)


def an_entry(number: int = 1, key: str = blob_key("a")) -> StoredEntry:
    return StoredEntry(number, MAIN, key, "version", 10, NOW, NOW, _parse(key))


ENTRIES = (an_entry(1), an_entry(2, blob_key("b")), an_entry(3, blob_key("c")))
LISTING = Listing(ENTRIES, complete=True, state=b"as it was")
CONTEXT: dict[str, Any] = {
    "access": Access(frozenset({MAIN, RELEASE}), frozenset({MAIN})),
    "abilities": Abilities(),
    "limits": StoreLimits(),
    "ignored": [Keep("some file", MAIN, NotADigest())],
    "settings": "{}",
    "mode": (False, False, False),
}
BEFORE = fingerprint(LISTING, **CONTEXT)


def after(*entries: StoredEntry) -> bytes | None:
    return fingerprint(replace(LISTING, entries=entries), **CONTEXT)


def test_it_is_the_same_for_the_same() -> None:
    assert fingerprint(LISTING, **CONTEXT) == BEFORE
    assert isinstance(BEFORE, bytes)


@pytest.mark.parametrize(
    "listing", [replace(LISTING, state=None), replace(LISTING, complete=False)]
)
def test_there_is_none_if_the_list_does_not_show_everything(listing: Listing) -> None:
    assert fingerprint(listing, **CONTEXT) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"access": Access(frozenset({MAIN}), frozenset({MAIN}))},
        {"access": Access(frozenset({MAIN, RELEASE}), frozenset({MAIN, RELEASE}))},
        {"access": Access(frozenset({MAIN, RELEASE, PULL}), frozenset({MAIN}))},
        {"abilities": Abilities(deletes=False)},
        {"limits": StoreLimits(quota=1)},
        {"limits": StoreLimits(retention=timedelta(days=7))},
        {"ignored": []},
        {"ignored": [Keep("another file", MAIN, NotADigest())]},
        {"ignored": [Keep("some file", RELEASE, NotADigest())]},
        {"ignored": [Keep("some file", MAIN, Unrecognized())]},
        {"settings": "{} "},
        {"mode": (True, False, False)},
        {"mode": (False, True, False)},
        {"mode": (False, False, True)},
    ],
    ids=count(),  # sets have another order in each process
)
def test_it_is_another_if_the_run_differs(changed: dict[str, Any]) -> None:
    assert fingerprint(LISTING, **(CONTEXT | changed)) != BEFORE


def test_it_is_another_if_the_store_says_so() -> None:
    assert fingerprint(replace(LISTING, state=b"as it is"), **CONTEXT) != BEFORE


def test_it_is_another_for_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__version__", "another")

    assert fingerprint(LISTING, **CONTEXT) != BEFORE


@pytest.mark.parametrize(
    "changed",
    [
        {"id": 9},
        {"ref": RELEASE},
        {"key": blob_key("d")},
        {"version": "another"},
        {"size": 11},
        {"created_at": NOW - A_MOMENT},
        {"last_accessed_at": NOW + A_MOMENT},
    ],
    ids=str,
)
@pytest.mark.parametrize("place", [0, 2])
def test_it_is_another_if_an_entry_differs(place: int, changed: dict[str, Any]) -> None:
    entries = list(ENTRIES)
    entries[place] = change(entries[place], **changed)

    assert after(*entries) != BEFORE


def test_it_is_another_if_an_entry_is_new_or_gone() -> None:
    prints = {after(*ENTRIES[:number]) for number in range(3)} | {after(*ENTRIES, an_entry(4))}

    assert len(prints | {BEFORE}) == 5


def test_the_order_of_refs_does_not_matter() -> None:
    refs = [frozenset(order) for order in ((MAIN, RELEASE, PULL), (PULL, RELEASE, MAIN))]

    assert (
        len({fingerprint(LISTING, **CONTEXT | {"access": Access(one, one)}) for one in refs}) == 1
    )


def test_no_entry_of_a_long_list_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 2)
    before = after(*ENTRIES)

    assert after(*ENTRIES[:2], change(ENTRIES[2], size=11)) != before
    assert after(change(ENTRIES[0], size=11), *ENTRIES[1:]) != before
    assert after(*ENTRIES) == before


@given(st.lists(st.integers(1, 9), max_size=9), st.integers(1, 4))
def test_batches_are_in_order_and_none_but_the_last_is_small(sizes: list[int], size: int) -> None:
    entries = [change(an_entry(number), size=one) for number, one in enumerate(sizes)]

    batches = list(in_batches(iter(entries), size))

    assert [one for batch in batches for one in batch] == entries
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(0 < len(batch) <= size for batch in batches)
