"""What the values that stages hand on say of themselves."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from maintainer.cacheconfig import (
    BlobKey,
    CacheConfig,
    UploadKey,
    why_too_large,
)
from maintainer.errors import MassDeletionError, UnreadableError, WriteRefusedError
from maintainer.exports import find_new_export
from maintainer.model.checks import CheckedContents
from maintainer.model.content import Content
from maintainer.model.decision import DeleteEntry, Deletion, Heal, RewriteResult
from maintainer.model.doubt import Cause, Doubt
from maintainer.model.entry import KnownEntry, StoredEntry
from maintainer.model.export import Export
from maintainer.model.index import KnownGeneration, ReadGeneration, read_until
from maintainer.model.marks import Mark, State
from maintainer.model.memory import WrittenGeneration
from maintainer.model.outcome import AlreadyGone, Deferred, Done, Failed, Outcome, Refused, Skipped
from maintainer.model.reason import (
    DeadlinePassed,
    LookedUp,
    NotMarked,
    OtherTool,
    Unreferenced,
    WrittenByOtherRun,
    WrittenDuringSweep,
)
from tests.snapshots import MAIN, NOW, WEB, an_index, blob, blob_key, hours

GRACE = timedelta(hours=24)


def _read(number: int = 4, config: CacheConfig | None = None) -> ReadGeneration:
    return ReadGeneration(WEB, number, Content.of(b"1234"), config, None, NOW, None, None)


def _swept(outcome: Outcome) -> Deletion:
    entry = KnownEntry(
        store_id=1,
        ref=MAIN,
        key=blob_key("a"),
        parsed=BlobKey(blob("a")),
        size=10,
        created_at=NOW,
        last_accessed_at=NOW,
        known_before=True,
        unreferenced_since=None,
        state="",
        reason=NotMarked(),
    )
    return Deletion(DeleteEntry(entry, State.DANGLING, Unreferenced()), outcome)


@pytest.mark.parametrize(
    ("outcome", "is_gone", "failure"),
    [
        (Done(), True, None),
        (AlreadyGone(), True, None),
        (Skipped(LookedUp()), False, None),
        (Failed("the server is away"), False, "the server is away"),
        (Refused("not by you"), False, "not by you"),
    ],
)
def test_a_deletion_knows_whether_the_entry_is_gone(
    outcome: Outcome, is_gone: bool, failure: str | None
) -> None:
    assert (_swept(outcome).is_gone, _swept(outcome).failure) == (is_gone, failure)


def test_a_rewrite_is_done_unless_it_failed_or_was_left() -> None:
    assert RewriteResult(WEB, _read(), ()).done
    assert not RewriteResult(WEB, None, (), error="the server is away").done
    assert not RewriteResult(WEB, None, (), deferred=DeadlinePassed()).done


def test_a_rewrite_says_what_became_of_it() -> None:
    assert RewriteResult(WEB, _read(), ()).outcome == Done()
    assert RewriteResult(WEB, None, ()).outcome == Skipped(WrittenByOtherRun())
    assert RewriteResult(WEB, None, (), error="away").outcome == Failed("away")
    deferred = RewriteResult(WEB, None, (), deferred=DeadlinePassed())
    assert deferred.outcome == Deferred(DeadlinePassed())


def test_only_a_reason_that_tells_since_when_is_told_it() -> None:
    entry = _swept(Done()).delete.entry
    since = NOW - hours(1)

    assert Mark(entry, State.FOREIGN, OtherTool()).overdue(NOW) == OtherTool()
    assert Mark(entry, State.DANGLING, Unreferenced()).overdue(NOW) == Unreferenced(NOW)
    assert Mark(entry, State.DANGLING, Unreferenced(), since).overdue(NOW) == Unreferenced(since)


def test_checks_change_something_if_content_is_missing() -> None:
    assert not CheckedContents(readable_entries={1}).changes_anything
    assert CheckedContents(broken_entries={1}).changes_anything
    assert CheckedContents(broken_blobs={blob("a")}).changes_anything


def test_a_rewrite_knows_how_much_it_has_written() -> None:
    assert RewriteResult(WEB, None, ()).sizes == ()
    assert RewriteResult(WEB, _read(), (), entries={"a": 3, "b": 5}).sizes == (3, 5)


def test_a_rewrite_protects_what_builds_have_named_meanwhile() -> None:
    met = (_read(config=an_index("a", "b")), _read())

    assert RewriteResult(WEB, _read(), met).protected == {blob("a"), blob("b")}


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_a_heal_names_what_a_build_has_written(names: tuple[str, ...]) -> None:
    heal = Heal(_read(), frozenset(map(blob, names)))

    assert heal.index == WEB
    assert heal.reason == WrittenDuringSweep("index-web-1-f921bd05#4", len(names))


@pytest.mark.parametrize(
    ("cause", "since", "has_ended"),
    [
        (Cause.NOT_FOUND, NOW - GRACE, True),
        (Cause.NOT_FOUND, NOW - GRACE + timedelta(microseconds=1), False),
        (Cause.NO_CONTENT, NOW - GRACE, False),
        (Cause.TRANSIENT, NOW - GRACE, False),
    ],
)
def test_doubt_ends_when_the_same_answer_has_come_for_a_grace_period(
    cause: Cause, since: datetime, has_ended: bool
) -> None:
    first = Cause.TRANSIENT if cause is Cause.TRANSIENT else Cause.NOT_FOUND

    assert Doubt(first, since).has_ended(cause, NOW, GRACE) == has_ended


@pytest.mark.parametrize(("hours", "has_ended"), [(0, False), (23, False), (24, True)])
def test_doubt_lasts_for_a_day_at_least_even_without_a_grace_period(
    hours: int, has_ended: bool
) -> None:
    doubt = Doubt(Cause.NOT_FOUND, NOW - timedelta(hours=hours))

    assert doubt.has_ended(Cause.NOT_FOUND, NOW, timedelta(0)) == has_ended


@pytest.mark.parametrize(
    ("size", "later", "is_in"), [(9, 1, True), (8, 1, False), (9, 60 * 24, False)]
)
def test_what_was_written_is_known_by_its_size_and_time(size: int, later: int, is_in: bool) -> None:
    at = NOW + timedelta(minutes=later)
    entry = StoredEntry(1, MAIN, "key", "version", size, at, at, None)

    assert WrittenGeneration(1, 9, NOW).is_in(entry) == is_in


def test_the_export_that_began_first_is_the_one_that_is_found() -> None:
    uploads = [(MAIN, blob(name), NOW - hours(age)) for name, age in (("a", 1), ("b", 3))]

    assert find_new_export(uploads, []) == Export(NOW - hours(3), MAIN)
    assert find_new_export(uploads, [(MAIN, blob("b"))]) == Export(NOW - hours(1), MAIN)
    assert find_new_export(uploads, [(MAIN, blob("a")), (MAIN, blob("b"))]) is None


def test_errors_say_what_happened_and_what_to_do() -> None:
    assert UnreadableError(Cause.TOO_LARGE, "it is large").cause is Cause.TOO_LARGE
    assert "run on push" in str(WriteRefusedError("key", "no"))
    assert "--accept-loss" in str(MassDeletionError("9 of 10 entries are gone"))


def test_an_upload_goes_by_its_folder() -> None:
    assert str(UploadKey("x")) == "ingest/x"


def test_an_index_of_nothing_but_brackets_is_too_large_whatever_its_size() -> None:
    assert why_too_large(b"[{" * 500_000, 2_000_000) is None
    assert why_too_large(b"[" * 1_000_001, 2_000_000) == (
        "holds more than 1,000,000 objects and lists"
    )


def test_builders_read_what_is_gone_until_it_was_missed_or_another_was_created() -> None:
    """Unless that was written down before: its time has passed."""
    old, new = (
        KnownGeneration(
            generation_id=number,
            index=WEB,
            number=number,
            content_digest=blob("content"),
            config=None,
            violation=None,
            created_at=NOW - hours(10 - number),
            store_id=None,
            exists=False,
            last_seen_at=NOW - hours(3),
            missing_since=NOW - hours(2),
        )
        for number in (1, 2)
    )

    assert read_until([old, new], NOW) == {1: NOW - hours(2), 2: NOW - hours(2)}
    assert read_until([old, new], NOW, {WEB: NOW - hours(1)}) == {}
    assert len(read_until([old, new], NOW, {WEB: NOW - hours(3)})) == 2
    seen_longer = replace(new, last_seen_at=NOW)
    assert read_until([old, seen_longer], NOW)[1] == seen_longer.created_at
