"""Exports in progress are found by few entries as by all."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig import IndexId, IndexKey, Ref, Scope
from maintainer.exports import find_export, keep_signs
from maintainer.mark import mark
from maintainer.model.snapshot import Snapshot
from tests.snapshots import LONG_AGO, MAIN, PULL, RELEASE, a_snapshot, an_index, blob

_BLOBS = ("base", "app", "web")
_REFS = (MAIN, RELEASE, PULL)
_minutes = st.integers(0, 90).map(lambda number: timedelta(minutes=number))
_ages = st.one_of(_minutes, st.sampled_from([timedelta(hours=1), LONG_AGO]))
_uploads = st.lists(
    st.tuples(st.sampled_from(_BLOBS), st.sampled_from(_REFS), _ages, st.booleans()), max_size=12
)
_exports = st.lists(st.tuples(st.sampled_from(_BLOBS), st.sampled_from(_REFS), _ages), max_size=4)


@given(_uploads, _exports)
def test_exports_are_found_by_the_first_upload_of_each_ref_as_by_all(
    uploads: list[tuple[str, Ref, timedelta, bool]], exports: list[tuple[str, Ref, timedelta]]
) -> None:
    every = _snapshot(uploads, exports)
    indexes = tuple(one for one in every.entries if isinstance(one.parsed, IndexKey))
    others = tuple(one for one in every.entries if one not in indexes)

    signs = keep_signs(replace(every, entries=indexes), others)

    few = replace(every, entries=(*indexes, *signs))
    assert len(signs) <= len(_REFS)
    for unreadable_too in (True, False):
        found = find_export(few, unreadable_too=unreadable_too)
        assert found == find_export(every, unreadable_too=unreadable_too)
    assert mark(few).opaque_indexes == mark(every).opaque_indexes


def _snapshot(
    uploads: list[tuple[str, Ref, timedelta, bool]], exports: list[tuple[str, Ref, timedelta]]
) -> Snapshot:
    """Return a snapshot of a token that reads main and the pull request, not the release."""
    world = a_snapshot(reading=(MAIN, PULL))
    for name, ref, age, is_signature in uploads:
        if is_signature:
            world.with_signature(blob(name), ref=ref, age=age)
        else:
            world.with_blob(name, ref=ref, age=age)
    for number, (name, ref, age) in enumerate(exports, 1):
        index = IndexId(ref, Scope("web"))
        if ref == RELEASE:
            world.with_entry(str(index.key(number)), ref=ref, age=age)
        else:
            world.with_index(number, an_index(name), of=index, age=age)
    return world.build()
