"""Runs on a bucket, over HTTP, against moto's server."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from typer.testing import CliRunner

from maintainer.cacheconfig import NO_REF, IndexId, Scope, content_digest, encode, stamp_of
from maintainer.cli.app import app
from maintainer.errors import LeaseLostError, StoreError, UnknownCacheError, UsageError
from maintainer.graph.forget import forget
from maintainer.model.outcome import Failed, Refused, Skipped
from maintainer.model.reason import BlobsExpire, Damaged, NamesDeleted, UploadsLeft, VersionsKept
from maintainer.report import Report
from maintainer.stores.looking import number_of
from maintainer.stores.objects.store import ObjectStore
from maintainer.stores.s3.address import Address
from maintainer.stores.s3.client import open_bucket
from tests.empty_database import query
from tests.integration.invariants import import_index
from tests.integration.simulated_runs import Memory
from tests.integration.world import START, blob_of, built
from tests.stores.contract import NO_GRACE
from tests.stores.runs import run_leased, run_on, take_over
from tests.stores.s3 import BLOBS, BUCKET, MANIFESTS, Moto, Reply, a_server, half_a_body, one_page

_CLAIM = "app/blobs.maintainer"
_PAGE = Path(__file__).parents[2] / "docs" / "s3.md"


@pytest.fixture(scope="module")
def server() -> Iterator[Moto]:
    with a_server() as moto:
        yield moto


@pytest.fixture
def moto(server: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Moto:
    monkeypatch.chdir(tmp_path)
    server.empty()
    server.now = START
    server.ignores_conditions = server.refuses_conditions = False
    server.lie = None
    return server


def test_a_run_of_the_command_line_repairs_merges_and_keeps_all_that_is_young(
    moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto.put(BLOBS + blob_of("old"), b"old")
    moto.now = datetime.now(UTC)
    moto.export("api", "base", "api", "test")
    moto.export("web", "base", "web")
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    del moto.keys[BLOBS + blob_of("test")]
    place = f"s3://cache/app/?region=us-east-1&endpoint_url={moto.url}&path_style=true"

    monkeypatch.setenv("MAINTAINER_EXPORT_WAIT", "0")
    needed = CliRunner().invoke(app, ["gc", "--store", place, "--repair", "--dry-run"])
    done = CliRunner().invoke(app, ["gc", "--store", place])
    needed_no_more = CliRunner().invoke(app, ["gc", "--store", place, "--repair"])

    assert (needed.exit_code, needed_no_more.exit_code) == (3, 0)
    assert done.exit_code == 0, done.output
    assert "are stored." in done.output
    assert "quota" not in done.output
    assert moto.blobs_of("api") == {blob_of("base"), blob_of("api")}
    assert moto.blobs_of("maintained") == {blob_of(step) for step in ("base", "api", "web")}
    assert BLOBS + blob_of("orphan") in moto.keys
    assert BLOBS + blob_of("old") in moto.keys  # An index may have referenced it until now.
    assert not [key for key in moto.keys if "probe" in key]


def test_what_a_run_writes_has_the_stamp_of_its_name_in_this_bucket(
    moto: Moto, memory: Memory
) -> None:
    moto.export("api", "base", "api", "test")
    del moto.keys[BLOBS + blob_of("test")]
    _gc(moto, memory)

    for name in ("api", "maintained"):
        stamp = stamp_of(IndexId(NO_REF, Scope(name)), moto.address().name)
        assert stamp.encode() in moto.keys[MANIFESTS + name].value


def test_what_is_stored_is_the_same_before_and_after_indexes_are_written(
    moto: Moto, memory: Memory
) -> None:
    moto.export("api", "base", "api", "test")
    del moto.keys[BLOBS + blob_of("test")]

    reports = [_gc(moto, memory) for _ in range(2)]

    assert [one.indexes_written for one in reports] == [2, 0]
    assert [one.space.used for one in reports if one.space] == [len("base") + len("api")] * 2


def test_why_names_no_ref_and_no_other_tool_where_there_is_none(moto: Moto, tmp_path: Path) -> None:
    moto.now = datetime.now(UTC)
    moto.export("api", "base", "api")
    place = f"s3://cache/app/?region=us-east-1&endpoint_url={moto.url}&path_style=true"
    rule = '[[room.rules]]\nprefix = "app/manifests/"\nunused_for = "30d"\n'
    (tmp_path / "rule.toml").write_text(rule)
    CliRunner().invoke(app, ["gc", "--store", place, "--config", "rule.toml"])

    name = CliRunner().invoke(app, ["why", "app/manifests/api"]).output
    layer = CliRunner().invoke(app, ["why", blob_of("api")]).output

    assert "app/manifests/api (not a layer) on s3://cache/app/" in name
    assert "1 result of api\n" in layer
    assert "another tool" not in name.splitlines()[0]
    assert "in -" not in name + layer


@pytest.mark.parametrize(
    ("path", "more", "place"),
    [
        ("ap/", "", "No cache was found in ap/manifests/."),
        ("app", "", "No cache was found in appmanifests/."),
        ("app/", "&names=api2;pr-*", "No cache in app/manifests/ has a name such as api2, pr-*."),
    ],
)
def test_where_no_cache_is_found_one_line_says_so_and_the_exit_status_no_error(
    moto: Moto, path: str, more: str, place: str
) -> None:
    moto.now = datetime.now(UTC)
    moto.export("api", "base", "api")
    moto.export("maintained", "base", "api")
    service = f"?region=us-east-1&endpoint_url={moto.url}&path_style=true{more}"

    done = CliRunner().invoke(app, ["gc", "--store", f"s3://cache/{path}{service}"])

    assert done.exit_code == 0, done.output
    assert f"Needs attention: {place}" in done.output
    assert "To do: Check the address" in done.output


def test_without_credentials_and_without_a_bucket_no_run_is_recorded(
    moto: Moto, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = f"s3://cache/app/?region=us-east-1&endpoint_url={moto.url}&path_style=true"
    other = place.replace("cache", "cahce", 1)

    misspelled = CliRunner().invoke(app, ["gc", "--store", other])
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "nothing"))
    refused = CliRunner().invoke(app, ["gc", "--store", place, "--database", "other.db"])

    assert isinstance(misspelled.exception, UnknownCacheError)
    assert str(misspelled.exception) == (
        "there is no bucket or container cahce (NoSuchBucket): check the address"
    )
    assert query(tmp_path / "maintainer.db", "SELECT count(*) FROM run") == [(0,)]
    assert "there are no AWS credentials: set AWS_PROFILE" in str(refused.exception)
    assert not (tmp_path / "other.db").exists()


@pytest.mark.usefixtures("moto")
@pytest.mark.parametrize(
    ("variable", "problem"),
    [
        ("AWS_PROFILE=nope", "there is no AWS profile nope: "),
        ("AWS_CONFIG_FILE=broken", "broken is not a valid AWS configuration: correct it"),
        ("AWS_SHARED_CREDENTIALS_FILE=broken", "broken is not a valid AWS configuration: "),
        ("AWS_WEB_IDENTITY_TOKEN_FILE=nothing", "cannot read nothing: No such file or dir"),
        ("AWS_ACCESS_KEY_ID=key", "are incomplete: set AWS_SECRET_ACCESS_KEY too"),
    ],
)
def test_an_invalid_configuration_of_the_sdk_is_a_usage_error_in_one_line_without_secrets(
    variable: str,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/maintainer")
    monkeypatch.setenv(*variable.split("="))
    Path("broken").write_text("password = secret\n[")

    done = CliRunner().invoke(app, ["gc", "--store", "s3://cache/app/?region=us-east-1"])
    examined = CliRunner().invoke(app, ["doctor", "--store", "s3://cache/app/?region=us-east-1"])

    assert isinstance(done.exception, UsageError)
    for said in (str(done.exception), examined.output):
        assert problem in said
        assert "secret" not in said
    assert "\n" not in str(done.exception)
    assert "Traceback" not in done.output + examined.output + capfd.readouterr().err


Event = tuple[str, int, Callable[[], None]]
"""What happens before which request of a kind."""


async def _run(moto: Moto, memory: Memory, more: Mapping[str, Any], event: Event | None) -> Report:
    chosen = dict(more)
    limit, ahead = chosen.pop("max_requests", None), chosen.pop("ahead", timedelta(0))
    merged = {"merged_tag": chosen.pop("merged_tag")} if "merged_tag" in chosen else {}
    is_leased, quota = chosen.pop("leased", False), chosen.pop("quota", None)
    status = chosen.pop("status", "done")
    how = replace(NO_GRACE, guarded=chosen.pop("guarded", False))
    room = {"rules": chosen.pop("rules", ())} | chosen.pop("room", {})
    address = moto.address(**chosen)
    async with open_bucket(address) as bucket:

        def act() -> None:
            if event and bucket.requests.counts[event[0]] == event[1]:
                moto.before = lambda: None
                event[2]()

        moto.before = act
        store = ObjectStore(bucket, address.layout.naming("maintained"), max_index_size=2**20)
        now = moto.now + ahead
        if is_leased:
            return await run_leased(store, memory, now)
        more = {"max_requests": limit, "quota": quota, "room": room, **merged}
        report = await run_on(store, memory, how, now, **more)
    assert report.status == status, report.problems
    return report


def _gc(moto: Moto, memory: Memory, event: Event | None = None, **more: Any) -> Report:
    """Do a run without a grace period."""
    return anyio.run(_run, moto, memory, more, event)


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory.make(tmp_path, 1)[0]


def _keys(moto: Moto) -> set[str]:
    return set(moto.keys)


def test_without_a_grace_period_a_blob_stays_as_long_as_a_build_may_rely_on_it(
    moto: Moto, memory: Memory
) -> None:
    moto.export("api", "base", "api")
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    orphan = BLOBS + blob_of("orphan")

    for hours, stays in ((0, True), (25, True), (2, False)):
        moto.now += timedelta(hours=hours)
        report = _gc(moto, memory)

        assert (orphan in moto.keys) == stays
        assert report.grace_seconds == 26 * 3600
    assert {BLOBS + blob_of("base"), BLOBS + blob_of("api")} <= _keys(moto)


@pytest.mark.parametrize("how", ["touched", "referenced"])
def test_a_blob_that_a_build_needs_since_the_run_began_stays(
    moto: Moto, memory: Memory, how: str
) -> None:
    moto.export("api", "base", "api")
    moto.put(BLOBS + blob_of("test"), b"test")
    needed = BLOBS + blob_of("test")
    _gc(moto, memory)
    moto.now += timedelta(hours=48)
    happens: dict[str, Event] = {
        "touched": ("list", 3, lambda: moto.touch(needed)),
        "referenced": ("list", 3, lambda: moto.write("web", "base", "test")),
    }

    report = _gc(moto, memory, happens[how])

    assert needed in moto.keys
    assert [a for a in report.actions if a.kind == "delete" and isinstance(a.outcome, Skipped)]


@pytest.mark.parametrize("is_young", [True, False])
def test_what_an_index_referenced_until_just_now_gets_its_grace_period_however_rare_runs_are(
    moto: Moto, memory: Memory, *, is_young: bool
) -> None:
    moto.export("api", "base", "api")
    moto.put(BLOBS + blob_of("test"), b"test")
    moto.now += timedelta(days=0 if is_young else 2)
    _gc(moto, memory)  # Nothing references it, and not yet for long.
    moto.now += timedelta(hours=1)
    # An export does not write anew what it finds that is young.
    (moto.write if is_young else moto.export)("api", "base", "test")
    moto.now += timedelta(days=6)
    moto.export("api", "base", "web")
    moto.now += timedelta(minutes=1)

    _gc(moto, memory)

    assert BLOBS + blob_of("test") in moto.keys
    moto.now += timedelta(hours=27)
    _gc(moto, memory)
    assert BLOBS + blob_of("test") not in moto.keys


_IMAGE = {
    "schemaVersion": 2,
    "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": blob_of("x")}],
}


@pytest.mark.parametrize("content", [_IMAGE, ["a", "list"]], ids=["an image", "a list"])
def test_json_among_the_indexes_that_no_builder_wrote_is_not_taken_for_a_broken_index(
    content: object, moto: Moto, memory: Memory
) -> None:
    moto.export("api", "base", "api")
    kept = json.dumps(content).encode()
    moto.put(MANIFESTS + "kept", kept)

    _gc(moto, memory)
    report = _gc(moto, memory)

    assert moto.keys[MANIFESTS + "kept"].value == kept
    assert report.indexes_written == 0


def test_a_blob_that_is_stored_without_a_byte_counts_as_missing(moto: Moto, memory: Memory) -> None:
    moto.export("api", "base", "api")
    moto.export("web", "base", "web")
    moto.put(BLOBS + blob_of("api"), b"")

    report = _gc(moto, memory)
    moto.now += timedelta(hours=27)
    again = _gc(moto, memory)

    assert moto.blobs_of("api") == {blob_of("base")}
    assert moto.blobs_of("maintained") == {blob_of("base"), blob_of("web")}
    damaged = [one.subject for one in report.actions if isinstance(one.reason, Damaged)]
    assert damaged == [blob_of("api")]
    assert BLOBS + blob_of("api") not in moto.keys  # So builds upload it again.
    assert not [one for one in again.notes if "list" in one.sentence]

    moto.put(BLOBS + blob_of("api"), b"api")
    _gc(moto, memory)

    assert moto.blobs_of("maintained") == {blob_of(step) for step in ("base", "api", "web")}


def test_nothing_is_what_the_blob_of_nothing_holds(moto: Moto, memory: Memory) -> None:
    nothing = content_digest(b"")
    moto.put(BLOBS + nothing, b"")
    index = encode(built("base", at=moto.now)).replace(blob_of("base").encode(), nothing.encode())
    moto.put(f"{MANIFESTS}api", index)

    _gc(moto, memory)

    assert moto.blobs_of("api") == {nothing}


def test_a_list_that_shows_no_sizes_makes_no_blob_missing(moto: Moto, memory: Memory) -> None:
    moto.export("api", "base", "api")
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    _gc(moto, memory)
    moto.now += timedelta(hours=27)
    before = _keys(moto)

    def lie(what: str, true: Reply) -> Reply:
        status, headers, body = true
        return status, headers, re.sub(rb"<Size>\d+</Size>", b"<Size>0</Size>", body)

    moto.lie = lie
    _gc(moto, memory)

    assert moto.blobs_of("api") == {blob_of("base"), blob_of("api")}
    assert before <= _keys(moto)


def test_a_name_that_a_build_overwrites_while_it_is_repaired_keeps_the_export(
    moto: Moto, memory: Memory
) -> None:
    moto.export("api", "base", "api", "test")
    del moto.keys[BLOBS + blob_of("test")]

    _gc(moto, memory, ("upload", 1, lambda: moto.export("api", "base", "web")))

    assert blob_of("web") in moto.blobs_of("api")
    assert blob_of("test") not in moto.blobs_of("api")


@pytest.mark.parametrize("old", [("base", "api", "test"), ()])
def test_an_export_that_a_stale_answer_hides_is_not_overwritten(
    moto: Moto, memory: Memory, old: tuple[str, ...]
) -> None:
    moto.export("api", "base", "api", "test")
    _gc(moto, memory)
    del moto.keys[BLOBS + blob_of("test")]
    moto.export("api", "base", "web")

    def answer_once_from_a_copy() -> None:
        def catch_up() -> None:
            moto.before = lambda: None
            moto.write("api", "base", "web")

        del moto.keys[MANIFESTS + "api"]
        if old:
            moto.write("api", *old)
        moto.before = catch_up

    _gc(moto, memory, ("download", 1, answer_once_from_a_copy))

    assert blob_of("web") in moto.blobs_of("api")


@pytest.mark.parametrize("how", ["ignores_conditions", "refuses_conditions"])
def test_a_server_that_ignores_conditions_is_found_out(
    moto: Moto, memory: Memory, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    moto.export("api", "base", "api", "test")
    del moto.keys[BLOBS + blob_of("test")]
    setattr(moto, how, True)

    _gc(moto, memory, ("upload", 1, lambda: moto.export("api", "base", "web")))

    assert blob_of("web") in moto.blobs_of("api")
    assert moto.blobs_of("maintained")
    assert "ignores conditions of writes" in caplog.text


def test_that_a_server_keeps_to_conditions_is_remembered_for_a_week(
    moto: Moto, memory: Memory
) -> None:
    uploads: list[int] = []
    for hours in (0, 1, 24 * 8, 0):
        moto.now += timedelta(hours=hours)
        moto.export("api", "base", f"api-{len(uploads)}")
        uploads.append(_gc(moto, memory).requests.counts["upload"])
    moto.ignores_conditions = True
    moto.now += timedelta(days=8)
    for step in ("web", "docs"):
        moto.export("api", "base", step)
        uploads.append(_gc(moto, memory).requests.counts["upload"])

    assert uploads == [6, 2, 6, 2, 4, 4]  # The first run says where its indexes are, too.


def test_an_index_that_is_written_during_the_sweep_is_healed(moto: Moto, memory: Memory) -> None:
    moto.export("api", "base", "api")
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    _gc(moto, memory)
    moto.now += timedelta(hours=48)

    _gc(moto, memory, ("list", 4, lambda: moto.write("web", "base", "orphan")))

    assert BLOBS + blob_of("orphan") not in moto.keys
    assert moto.blobs_of("web") == {blob_of("base")}


def test_when_most_names_have_expired_by_a_rule_the_next_runs_go_on(
    moto: Moto, memory: Memory
) -> None:
    for number in range(6):
        moto.export(f"commit-{number}", "base", f"step {number}")
    _gc(moto, memory)
    moto.now += timedelta(days=40)
    moto.export("main", "base", "main")
    moto.now += timedelta(hours=30)
    rules: dict[str, Any] = {"guarded": True, "rules": [{"prefix": MANIFESTS, "unused_for": "30d"}]}

    expired = _gc(moto, memory, **rules)
    moto.now += timedelta(days=1)
    after = _gc(moto, memory, **rules)

    assert len(expired.deletions) == 6
    assert {key.removeprefix(MANIFESTS) for key in moto.keys if key.startswith(MANIFESTS)} == {
        "main",
        "maintained",
    }
    assert (after.status, after.problems) == ("done", ())
    assert not [one for one in after.notes if isinstance(one.reason, NamesDeleted)]


def _expire_all(moto: Moto, memory: Memory) -> dict[str, Any]:
    """Let a rule delete the last names of a cache without a merge; return its settings."""
    more: dict[str, Any] = {"guarded": True, "merged_tag": ""}
    moto.export("api", "base", "api")
    moto.export("web", "base", "web")
    _gc(moto, memory, **more)
    moto.now += timedelta(days=31)
    more["rules"] = [{"prefix": MANIFESTS, "unused_for": "30d"}]
    assert len(_gc(moto, memory, **more).deleted) == 2
    assert not [key for key in moto.keys if key.startswith(MANIFESTS)]
    moto.now += timedelta(hours=2)
    return more


def test_when_the_last_name_has_expired_by_a_rule_the_next_runs_go_on(
    moto: Moto, memory: Memory
) -> None:
    more = _expire_all(moto, memory)

    after = []
    for _ in range(4):
        after.append(_gc(moto, memory, **more))
        moto.now += timedelta(hours=20)

    assert not [
        note for one in after for note in one.notes if isinstance(note.reason, NamesDeleted)
    ]
    assert not [key for key in moto.keys if key.startswith(BLOBS) and key != _CLAIM]


def _lose_answers_to_deletions(what: str, true: Reply) -> Reply:
    """Answer to deletions of names, which succeed, as a proxy does that has lost the answer.

    The SDK does not try this one again, which would take seconds.
    """
    return ("520 Unknown", {}, b"") if what.startswith("DELETE ") else true


def test_when_the_answer_to_the_last_deletion_of_a_name_is_lost_the_next_runs_go_on(
    moto: Moto, memory: Memory
) -> None:
    more: dict[str, Any] = {"guarded": True, "merged_tag": ""}
    moto.export("api", "base", "api")
    _gc(moto, memory, **more)
    moto.now += timedelta(days=31)
    more["rules"] = [{"prefix": MANIFESTS, "unused_for": "30d"}]

    moto.lie = _lose_answers_to_deletions
    lost = _gc(moto, memory, status="failed", **more)
    moto.lie = None
    assert [type(one.outcome) for one in lost.undeleted] == [Failed]
    assert MANIFESTS + "api" not in moto.keys

    for _ in range(3):
        moto.now += timedelta(hours=20)
        _gc(moto, memory, **more)

    assert not [key for key in moto.keys if key.startswith(BLOBS) and key != _CLAIM]


@pytest.mark.parametrize("runs", [0, 1])
def test_blobs_that_came_after_the_last_name_has_expired_need_an_index(
    moto: Moto, memory: Memory, runs: int
) -> None:
    more = _expire_all(moto, memory)
    for _ in range(runs):
        _gc(moto, memory, **more)
    moto.touch(BLOBS + blob_of("base"))  # By an export to another prefix, or one that is not shown.
    before = _keys(moto)
    moto.now += timedelta(days=3)

    with pytest.raises(AssertionError, match="no index could be read"):
        _gc(moto, memory, **more)

    assert _keys(moto) == before


def test_names_that_are_gone_when_others_have_expired_are_no_empty_cache(
    moto: Moto, memory: Memory
) -> None:
    more: dict[str, Any] = {"guarded": True, "merged_tag": ""}
    moto.export("api", "base", "api")
    moto.export("old", "base", "old")
    _gc(moto, memory, **more)
    moto.now += timedelta(days=31)
    rules = [{"prefix": f"{MANIFESTS}old", "unused_for": "30d"}]
    assert len(_gc(moto, memory, rules=rules, **more).deleted) == 1
    del moto.keys[MANIFESTS + "api"]
    before = _keys(moto)
    moto.now += timedelta(days=3)

    with pytest.raises(AssertionError, match="no index could be read"):
        _gc(moto, memory, rules=rules, **more)

    assert _keys(moto) == before


def test_a_name_that_a_rule_has_let_expire_hides_no_loss_of_others_that_end_alike(
    moto: Moto, memory: Memory
) -> None:
    rules: dict[str, Any] = {"guarded": True, "rules": [{"prefix": f"{MANIFESTS}pr-"}]}
    rules["rules"][0]["unused_for"] = "30d"
    moto.export("pr-1/cache", "base", "pr")
    _gc(moto, memory, **rules)
    moto.now += timedelta(days=40)
    for name in ("main", "dev", "next"):
        moto.export(f"{name}/cache", "base", name)
    moto.export("tools", "base", "tools")
    moto.now += timedelta(hours=30)
    assert _gc(moto, memory, **rules).deletions
    for key in [key for key in moto.keys if key.startswith(MANIFESTS)]:
        if not key.endswith("/tools"):
            del moto.keys[key]

    with pytest.raises(AssertionError, match="only 1 of 5 known indexes were found"):
        _gc(moto, memory, **rules)


def test_what_a_rule_has_deleted_among_the_blobs_hides_no_loss_of_names(
    moto: Moto, memory: Memory
) -> None:
    rules: dict[str, Any] = {
        "guarded": True,
        "rules": [{"prefix": f"{BLOBS}tmp/", "unused_for": "30d"}],
    }
    names = ("main", "dev", "next")
    for name in names:
        moto.put(f"{BLOBS}tmp/{name}", b"another tool's")
    moto.export("tools", "base", "tools")
    _gc(moto, memory, **rules)
    moto.now += timedelta(days=40)
    for name in names:
        moto.export(name, "base", name)
    moto.now += timedelta(hours=30)
    assert len(_gc(moto, memory, **rules).deletions) == len(names)
    for name in (*names, "maintained"):
        del moto.keys[MANIFESTS + name]

    with pytest.raises(AssertionError, match="only 1 of 5 known indexes were found"):
        _gc(moto, memory, **rules)


def test_after_a_run_in_the_future_names_that_expire_do_not_look_like_an_outage(
    moto: Moto, memory: Memory
) -> None:
    rules: dict[str, Any] = {
        "guarded": True,
        "rules": [{"prefix": MANIFESTS, "unused_for": "30d"}],
    }
    for number in range(6):
        moto.export(f"commit-{number}", "base", f"step {number}")
    _gc(moto, memory, **rules)
    moto.now += timedelta(days=39)
    moto.export("main", "base", "main")
    _gc(moto, memory, guarded=True, ahead=timedelta(hours=23))
    moto.now += timedelta(hours=22)
    assert _gc(moto, memory, **rules).deletions

    moto.now += timedelta(hours=12)

    assert _gc(moto, memory, **rules).status == "done"


def test_a_clock_that_is_ahead_lets_no_name_expire_and_no_grace_period_end(
    moto: Moto, memory: Memory
) -> None:
    rules = [{"prefix": MANIFESTS, "unused_for": "30d"}]
    for name in ("main", "web"):
        moto.export(name, "base", name)
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    _gc(moto, memory, rules=rules)
    before = _keys(moto)
    moto.now += timedelta(days=29, hours=12)

    report = _gc(moto, memory, rules=rules, ahead=timedelta(hours=13))

    assert _keys(moto) == before
    assert "this machine's clock is ahead of the service's" in report.deletions[0].outcome_sentence


def test_a_clock_that_is_far_ahead_ends_the_run(moto: Moto, memory: Memory) -> None:
    moto.export("api", "base", "api")
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    before = _keys(moto)

    with pytest.raises(AssertionError, match="clock is 35 days ahead of the service's: set it"):
        _gc(moto, memory, ahead=timedelta(days=35))

    assert _keys(moto) == before


def test_manifests_under_another_prefix_protect_the_blobs_that_they_share(
    moto: Moto, memory: Memory
) -> None:
    moto.export("api", "base", "api")
    moto.put(BLOBS + blob_of("web"), b"web")
    moto.put("app/others/web", encode(built("web", at=moto.now)))
    both = ("manifests/", "others/")
    _gc(moto, memory, manifests_prefixes=both)
    moto.now += timedelta(hours=48)

    _gc(moto, memory, manifests_prefixes=both)

    assert BLOBS + blob_of("web") in moto.keys
    assert blob_of("web") in moto.blobs_of("maintained")


def test_only_the_chosen_names_are_maintained_and_the_others_keep_their_blobs(
    moto: Moto, memory: Memory
) -> None:
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    moto.now += timedelta(days=2)
    for name in ("web", "api", "pr-1"):
        moto.export(name, "base", name, "test")
    del moto.keys[BLOBS + blob_of("test")]
    others = moto.keys[MANIFESTS + "api"].value
    rules = [{"prefix": MANIFESTS, "unused_for": "30d"}]

    merged = _gc(moto, memory, names=("web", "pr-*"), rules=rules)
    blobs = moto.blobs_of("maintained")
    moto.now += timedelta(days=31)
    moto.export("web", "web")
    _gc(moto, memory, names=("web", "pr-*"), rules=rules)

    assert {one.scope for one in merged.indexes} == {"web", "pr-1", "maintained"}
    assert blobs == {blob_of("base"), blob_of("web"), blob_of("pr-1")}
    assert MANIFESTS + "pr-1" not in moto.keys
    assert moto.keys[MANIFESTS + "api"].value == others
    assert BLOBS + blob_of("api") in moto.keys
    assert BLOBS + blob_of("orphan") not in moto.keys


def test_configurations_that_write_one_merge_keep_each_others_blobs(
    moto: Moto, memory: Memory
) -> None:
    for name in ("web", "api"):
        moto.export(name, "base", name)
    _gc(moto, memory, names=("web",))
    _gc(moto, memory, names=("api",))
    moto.export("web", "base", "new")
    for days in (9, 9, 9, 40, 40):
        moto.now += timedelta(days=days)
        of_all = ("base", "web", "api", "new") if days < 40 else ("base", "api", "new")
        for name in ("web", "api"):
            _gc(moto, memory, names=(name,))
            assert moto.blobs_of("maintained") == {blob_of(step) for step in of_all}
    assert BLOBS + blob_of("web") not in moto.keys


def test_names_that_are_mistyped_leave_the_merge_as_it_is(moto: Moto, memory: Memory) -> None:
    moto.export("web", "base", "web")
    _gc(moto, memory)
    moto.export("web", "base", "new")
    moto.now += timedelta(days=60)

    _gc(moto, memory, names=("wbe",))

    assert moto.blobs_of("maintained") == {blob_of("base"), blob_of("web")}


def test_a_build_of_another_name_protects_what_it_exports_during_the_sweep(
    moto: Moto, memory: Memory
) -> None:
    moto.export("web", "base", "web")
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    _gc(moto, memory, names=("web",))
    moto.now += timedelta(hours=48)

    export: Event = ("list", 3, lambda: moto.write("api", "orphan"))
    _gc(moto, memory, export, names=("web",))

    assert BLOBS + blob_of("orphan") in moto.keys


@pytest.mark.parametrize("content", [b'{"layers": [', b"{}" + b" " * 2**20])
def test_another_name_that_cannot_be_read_keeps_all_blobs(
    content: bytes, moto: Moto, memory: Memory
) -> None:
    moto.export("web", "base", "web")
    moto.put(MANIFESTS + "api", content)
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    _gc(moto, memory, names=("web",))
    moto.now += timedelta(days=90)

    _gc(moto, memory, names=("web",))

    assert BLOBS + blob_of("orphan") in moto.keys
    assert moto.keys[MANIFESTS + "api"].value == content


def test_nothing_leaves_for_room_whose_blobs_another_name_keeps_anyway(
    moto: Moto, memory: Memory
) -> None:
    for name in ("web", "api"):
        moto.export(name, "base", "test")
    room: dict[str, Any] = {"names": ("web",), "quota": "5B", "room": {"keep_free": "0B"}}
    _gc(moto, memory, **room)
    moto.now += timedelta(days=31)

    _gc(moto, memory, **room)

    assert moto.blobs_of("web") == {blob_of("base"), blob_of("test")}


def test_in_a_full_bucket_the_same_export_again_is_one(moto: Moto, memory: Memory) -> None:
    moto.export("web", "base", "web")
    _gc(moto, memory)
    for _ in range(8):
        moto.now += timedelta(days=1)
        _export_again(moto, "web", "base", "web")
        moto.now += timedelta(minutes=5)
        _gc(moto, memory)
    moto.now += timedelta(days=2)
    moto.export("api", "base", "api")
    moto.now += timedelta(hours=1)

    report = _gc(moto, memory, quota="7B", room={"keep_free": "0B"})

    assert moto.blobs_of("web") == {blob_of("base"), blob_of("web")}
    assert report.room
    assert report.room.departures == ()


def test_the_same_export_again_after_forget_is_remembered(moto: Moto, memory: Memory) -> None:
    moto.export("web", "base", "web")
    moto.export("api", "base", "api")
    _gc(moto, memory)
    moto.now += timedelta(hours=1)
    with memory.database.begin() as connection:
        forget(connection, "web", moto.now, dry_run=False)
    moto.now += timedelta(hours=1)
    _export_again(moto, "web", "base", "web")
    moto.now += timedelta(hours=1)

    _gc(moto, memory)

    assert moto.blobs_of("web") == {blob_of("base"), blob_of("web")}


def test_what_was_exported_just_before_the_last_run_is_forgotten_all_the_same(
    moto: Moto, memory: Memory
) -> None:
    moto.export("web", "base", "web")
    moto.export("api", "base", "api")
    moto.now += timedelta(minutes=5)
    _gc(moto, memory)
    moto.now += timedelta(hours=1)
    with memory.database.begin() as connection:
        forget(connection, "web", moto.now, dry_run=False)
    moto.now += timedelta(hours=1)

    _gc(moto, memory)

    assert moto.blobs_of("web") == frozenset()


def _export_again(moto: Moto, name: str, *steps: str) -> None:
    """Export what is stored under a name already: S3's tag of it is the same."""
    for step in steps:
        moto.put(BLOBS + blob_of(step), step.encode())
    moto.put(MANIFESTS + name, moto.keys[MANIFESTS + name].value)


@pytest.mark.parametrize("theirs", ["others/", "manifests/theirs/"])
def test_two_configurations_that_share_blobs_without_knowing_it_delete_none(
    theirs: str, moto: Moto, memory: Memory, tmp_path: Path
) -> None:
    moto.export("api", "base", "api")
    moto.put(BLOBS + blob_of("web"), b"web")
    moto.put(f"app/{theirs}web", encode(built("web", at=moto.now)))
    other = Memory(tmp_path / "other.db")
    stored = {key for key in moto.keys if key.startswith(BLOBS)}
    for whose, prefix in ((other, theirs), (memory, "manifests/")):
        _gc(moto, whose, manifests_prefixes=(prefix,))
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    moto.now += timedelta(hours=48)

    with pytest.raises(AssertionError, match="nothing is deleted until"):
        _gc(moto, other, manifests_prefixes=(theirs,))
    if theirs.startswith("manifests/"):
        _gc(moto, memory)  # It reads theirs, too.
    else:
        with pytest.raises(AssertionError, match="nothing is deleted until"):
            _gc(moto, memory)
        _gc(moto, memory, manifests_prefixes=("manifests/", theirs))

    assert {key for key in moto.keys if key.startswith(BLOBS)} == stored


def _claim(*manifests: str) -> bytes:
    """Return what runs write of the indexes that share the blobs."""
    claims = {"blobs": "app/blobs/", "manifests": manifests}
    return json.dumps(claims, separators=(",", ":")).encode()


def test_a_cache_that_was_copied_to_another_prefix_is_swept_as_the_original_is(
    moto: Moto, memory: Memory
) -> None:
    moto.export("api", "base", "api")
    moto.put("app/others/web", encode(built("web", at=moto.now)))
    _gc(moto, memory)
    for key, one in list(moto.keys.items()):
        moto.put(f"copy/{key.removeprefix('app/')}", one.value)
    moto.put(f"copy/blobs/{blob_of('orphan')}", b"orphan")
    moto.now += timedelta(hours=48)

    _gc(moto, memory, prefix="copy/")

    assert f"copy/blobs/{blob_of('orphan')}" not in moto.keys


def test_a_configuration_that_is_gone_counts_no_longer(moto: Moto, memory: Memory) -> None:
    moto.export("api", "base", "api")
    moto.put(_CLAIM, _claim("app/former/", "app/manifests/"))
    moto.put("app/former/", b"")  # The mark of a folder, which is left when all is deleted.
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    moto.now += timedelta(hours=48)

    _gc(moto, memory)

    assert BLOBS + blob_of("orphan") not in moto.keys
    assert moto.keys[_CLAIM].value == _claim("app/manifests/")


@pytest.mark.parametrize(
    "content",
    [
        b"# read me",
        b"{}",
        b"[1]",
        b'["a"' * 20_000,
        json.dumps({"blobs": "", "manifests": [""] * 101}).encode(),
    ],
)
def test_a_claim_that_no_run_has_written_is_not_believed(
    content: bytes, moto: Moto, memory: Memory
) -> None:
    moto.export("api", "base", "api")
    moto.put(_CLAIM, content)
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    moto.now += timedelta(hours=48)

    with pytest.raises(AssertionError, match=f"{_CLAIM} is not what runs have written"):
        _gc(moto, memory)

    assert BLOBS + blob_of("orphan") in moto.keys
    assert moto.keys[_CLAIM].value == content
    assert moto.blobs_of("maintained") == {blob_of("base"), blob_of("api")}


def test_a_claim_that_another_run_has_overwritten_is_written_again_before_anything_is_deleted(
    moto: Moto, memory: Memory
) -> None:
    moto.export("api", "base", "api")
    moto.put("app/others/web", encode(built("web", at=moto.now)))
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    _gc(moto, memory)
    moto.now += timedelta(hours=48)
    moto.put(_CLAIM, _claim("app/others/"))

    with pytest.raises(AssertionError, match="nothing is deleted until"):
        _gc(moto, memory)

    assert moto.keys[_CLAIM].value == _claim("app/manifests/", "app/others/")
    assert BLOBS + blob_of("orphan") in moto.keys


def test_what_the_owner_should_change_at_the_bucket_is_in_the_report(
    moto: Moto, memory: Memory
) -> None:
    moto.export("api", "base", "api")
    moto.backend.put_bucket_versioning("cache", "Enabled")
    moto.backend.put_bucket_lifecycle(
        "cache",
        [
            {
                "ID": "all",
                "Filter": {"Prefix": "app/"},
                "Status": "Enabled",
                "Expiration": {"Days": "30"},
            }
        ],
    )
    moto.begin_upload(BLOBS + "x")
    moto.now += timedelta(days=8)

    report = _gc(moto, memory)

    assert [type(note.reason) for note in report.notes] == [
        BlobsExpire,
        VersionsKept,
        UploadsLeft,
    ]
    assert report.verdict
    assert "builds will fail" in report.verdict.message


@pytest.mark.parametrize(
    ("prefix", "stays"),
    [("", False), ("app/", False), ("other/", True), ("app/blobs/sha256:0", True)],
)
def test_only_a_rule_for_all_blobs_frees_their_old_versions(
    moto: Moto, memory: Memory, prefix: str, stays: bool
) -> None:
    moto.export("api", "base", "api")
    moto.backend.put_bucket_versioning("cache", "Enabled")
    rule = {"ID": "old", "Filter": {"Prefix": prefix}, "Status": "Enabled"}
    rule["NoncurrentVersionExpiration"] = {"NoncurrentDays": "1"}
    moto.backend.put_bucket_lifecycle("cache", [rule])

    notes = [type(note.reason) for note in _gc(moto, memory).notes]

    assert notes == [VersionsKept] * stays


def _documented(without: str = "") -> str:
    """Return the policy on the page, for our bucket.

    AWS asks for each object of a deletion of several; moto asks for the bucket.
    """
    found = re.search(r"```json\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    assert found
    policy = json.loads(found[1].replace("my-bucket", BUCKET))
    listing, objects = policy["Statement"]
    actions = [listing["Action"], *objects["Action"]]
    assert not without or without in actions
    listing["Action"] = [one for one in actions[:1] if one != without] or "s3:ListAllMyBuckets"
    objects["Action"] = [one for one in actions[1:] if one != without]
    if "s3:DeleteObject" in objects["Action"]:
        objects["Resource"] = [objects["Resource"], listing["Resource"]]
    return json.dumps(policy)


def _allow(moto: Moto, monkeypatch: pytest.MonkeyPatch, policy: str) -> ExitStack:
    stack = ExitStack()
    for name, value in stack.enter_context(moto.authorizing(policy)).items():
        monkeypatch.setenv(name, value)
    return stack


def test_the_documented_permissions_are_enough_and_fewer_are_reported(
    moto: Moto, memory: Memory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    moto.now += timedelta(days=2)
    moto.export("api", "base", "api", "test")
    _gc(moto, memory)
    moto.now += timedelta(days=9)  # Conditions of writes are tried again.
    del moto.keys[BLOBS + blob_of("test")]

    def is_refused(without: str) -> None:
        refused = pytest.raises(AssertionError, match=r"AccessDenied|Forbidden")
        with _allow(moto, monkeypatch, _documented(without)), refused:
            _gc(moto, memory)

    for without in ("s3:ListBucket", "s3:GetObject", "s3:DeleteObject"):
        is_refused(without)
        assert BLOBS + blob_of("orphan") in moto.keys
    assert re.search(r"maintainer-probe-\w+ stays: AccessDenied", caplog.text)

    with _allow(moto, monkeypatch, _documented()):
        _gc(moto, memory)
        with pytest.raises(StoreError, match="AccessDenied"):
            anyio.run(_look, moto, "elsewhere/blobs/x")

    assert BLOBS + blob_of("orphan") not in moto.keys
    assert blob_of("test") not in moto.blobs_of("api")
    moto.export("web", "base", "web")
    is_refused("s3:PutObject")


async def _look(moto: Moto, key: str) -> None:
    async with open_bucket(moto.address()) as bucket:
        await bucket.get(key, limit=1)


def test_a_name_that_a_rule_lets_expire_goes_unless_a_build_exports_to_it(
    moto: Moto, memory: Memory
) -> None:
    moto.export("api", "base", "api")
    moto.export("web", "base", "web")
    _gc(moto, memory)
    moto.now += timedelta(days=31)
    rules = [{"prefix": MANIFESTS, "unused_for": "30d"}]
    export: Event = ("delete", 1, lambda: moto.export("api", "base", "docs"))

    report = _gc(moto, memory, export, rules=rules)

    assert {key.removeprefix(MANIFESTS) for key in _keys(moto) if MANIFESTS in key} == {
        "api", "maintained",
    }  # fmt: skip
    assert blob_of("docs") in moto.blobs_of("api")
    assert [a for a in report.actions if a.kind == "delete" and isinstance(a.outcome, Skipped)]


def test_what_expires_with_its_name_is_not_reported_as_lost(moto: Moto, memory: Memory) -> None:
    for name in ("api", "web"):
        moto.export(name, "base", name)
    _gc(moto, memory)
    moto.now += timedelta(days=31)
    moto.write("web", "base", "web")

    reports = [_gc(moto, memory, rules=[{"prefix": MANIFESTS, "unused_for": "30d"}]) for _ in "12"]

    assert moto.blobs_of("maintained") == {blob_of("base"), blob_of("web")}
    assert [one.results.dropped for one in reports] == [0, 0]
    assert [one.verdict and one.verdict.level for one in reports] == ["good", "good"]


def test_blobs_without_any_index_are_a_wrong_prefix_and_nothing_is_deleted(
    moto: Moto, memory: Memory
) -> None:
    moto.export("api", "base", "api")
    moto.now += timedelta(days=30)
    before = _keys(moto)

    with pytest.raises(AssertionError, match="no index could be read under app/indexes/: check"):
        _gc(moto, memory, manifests_prefixes=("indexes/",))

    assert _keys(moto) == before


def test_a_run_that_has_nothing_to_do_lists_twice_and_ends(moto: Moto, memory: Memory) -> None:
    moto.export("api", "base", "api")
    for _ in range(2):
        _gc(moto, memory)
        moto.now += timedelta(minutes=10)

    report = _gc(moto, memory)

    assert report.requests.counts == {"list": 2}


def test_a_budget_that_ends_during_the_sweep_defers_the_rest(moto: Moto, memory: Memory) -> None:
    moto.export("api", "base", "api")
    for name in "abc":
        moto.put(BLOBS + blob_of(name), b"orphan")
    _gc(moto, memory)
    moto.now += timedelta(hours=27)

    report = _gc(moto, memory, max_requests=12)

    assert {BLOBS + blob_of("base"), BLOBS + blob_of("api")} <= _keys(moto)
    assert sum(report.requests.counts.values()) <= 12


def _deny(moto: Moto, *keys: str) -> None:
    """Allow everything but to delete some objects, as a policy of a bucket does."""
    policy = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:DeleteObject",
                    "Resource": [f"arn:aws:s3:::{BUCKET}/{key}" for key in keys],
                }
            ],
        }
    )
    moto.backend.buckets[BUCKET].policy = policy.encode()


def _put_blobs(moto: Moto, what: str, count: int) -> list[str]:
    """Put blobs that no manifest references; return their keys."""
    keys = [BLOBS + blob_of(f"{what} {number}") for number in range(count)]
    for key in keys:
        moto.put(key, what.encode())
    return keys


def test_an_object_that_may_not_be_deleted_is_reported_and_the_others_go(
    moto: Moto, memory: Memory
) -> None:
    moto.export("api", "base", "api")
    orphans = _put_blobs(moto, "orphan", 20)
    _gc(moto, memory)
    moto.now += timedelta(hours=27)
    kept = min(orphans, key=number_of)  # The first one.
    _deny(moto, kept)

    report = _gc(moto, memory, status="failed")

    assert set(orphans) & _keys(moto) == {kept}
    [refused] = report.undeleted
    assert refused.outcome == Refused("AccessDenied: Access Denied")
    assert report.problems == (f"{kept} was not deleted: AccessDenied: Access Denied",)


def test_an_object_that_may_not_even_be_looked_up_is_reported_and_the_others_go(
    moto: Moto, memory: Memory
) -> None:
    moto.export("api", "base", "api")
    orphans = _put_blobs(moto, "orphan", 20)
    _gc(moto, memory)
    moto.now += timedelta(hours=27)
    hidden = max(orphans)  # Encrypted with a key that runs may not use, say.

    def refuse(what: str, true: Reply) -> Reply:
        is_hidden = what.startswith("HEAD ") and hidden in what
        return ("403 Forbidden", {}, b"") if is_hidden else true

    moto.lie = refuse
    report = _gc(moto, memory, status="failed")

    assert set(orphans) & _keys(moto) == {hidden}
    [refused] = report.undeleted
    assert isinstance(refused.outcome, Refused)


def test_a_name_that_may_not_be_deleted_is_reported_and_the_others_go(
    moto: Moto, memory: Memory
) -> None:
    for name in ("api", "old", "older"):
        moto.export(name, "base", name)
    _gc(moto, memory)
    moto.now += timedelta(days=31)
    moto.export("api", "base", "api")
    _deny(moto, f"{MANIFESTS}old")

    rules = [{"prefix": MANIFESTS, "unused_for": "30d"}]

    report = _gc(moto, memory, rules=rules, status="failed")

    assert MANIFESTS + "older" not in moto.keys
    [refused] = report.undeleted
    assert refused.subject == f"{MANIFESTS}old"
    assert isinstance(refused.outcome, Refused)


def test_names_that_a_first_run_has_deleted_that_failed_are_no_loss(
    moto: Moto, memory: Memory
) -> None:
    for number in range(6):
        moto.export(f"commit-{number}", "base", f"step {number}")
    moto.now += timedelta(days=40)
    moto.export("main", "base", "main")
    _deny(moto, f"{MANIFESTS}commit-3")
    rules: dict[str, Any] = {"guarded": True, "rules": [{"prefix": MANIFESTS, "unused_for": "30d"}]}

    for deleted in (5, 0, 0):
        report = _gc(moto, memory, status="failed", **rules)
        [problem] = report.problems
        assert problem.startswith(f"{MANIFESTS}commit-3 was not deleted: ")
        assert report.entries_deleted == deleted
        moto.now += timedelta(hours=1)


def test_when_the_answer_to_the_last_deletion_of_a_first_run_is_lost_the_next_runs_go_on(
    moto: Moto, memory: Memory
) -> None:
    more: dict[str, Any] = {"guarded": True, "merged_tag": ""}
    moto.export("api", "base", "api")
    moto.now += timedelta(days=31)
    more["rules"] = [{"prefix": MANIFESTS, "unused_for": "30d"}]

    moto.lie = _lose_answers_to_deletions
    _gc(moto, memory, status="failed", **more)
    moto.lie = None

    for _ in range(3):
        moto.now += timedelta(hours=30)
        _gc(moto, memory, **more)

    assert not [key for key in moto.keys if key.startswith(BLOBS) and key != _CLAIM]


def test_where_nothing_may_be_deleted_the_sweep_ends_early(moto: Moto, memory: Memory) -> None:
    moto.export("api", "base", "api")
    _put_blobs(moto, "orphan", 400)
    _gc(moto, memory)
    moto.now += timedelta(hours=27)
    _deny(moto, "*")

    report = _gc(moto, memory, status="failed")

    refused = [one for one in report.undeleted if isinstance(one.outcome, Refused)]
    assert not report.deleted
    assert 100 <= len(refused) < 210
    assert report.requests.counts["delete"] < 10
    assert report.requests.counts["look-up"] < 210
    assert report.verdict
    assert report.verdict.advice.endswith("; nothing was deleted.")


def test_however_many_old_objects_may_not_be_deleted_the_others_go(
    moto: Moto, memory: Memory
) -> None:
    moto.export("api", "base", "api")
    locked = _put_blobs(moto, "locked", 210)
    moto.now += timedelta(hours=1)
    others = _put_blobs(moto, "orphan", 5)
    _gc(moto, memory)
    moto.now += timedelta(hours=30)
    _deny(moto, *locked)

    first, second = (_gc(moto, memory, status="failed") for _ in range(2))

    assert not first.deleted
    assert {one.subject for one in second.deleted} == set(others)
    assert set(locked) <= _keys(moto)


def test_a_run_that_lost_its_lease_on_the_way_neither_writes_nor_deletes(
    moto: Moto, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintainer.graph.lease._TRUSTED", 0)
    moto.export("api", "base", "api")
    moto.put(BLOBS + blob_of("orphan"), b"orphan")

    def lose(kind: str, number: int) -> None:
        before = _keys(moto)
        with pytest.raises(LeaseLostError):
            _gc(moto, memory, (kind, number, lambda: take_over(memory)), leased=True)
        assert _keys(moto) == before

    lose("upload", 4)  # The last one that tries conditions.
    moto.ignores_conditions = True
    lose("look-up", 4)  # Whether the index is still the one that was read.
    _gc(moto, memory)
    moto.now += timedelta(days=2)
    lose("look-up", 4)  # Whether a build has touched the blob.


def test_what_is_no_index_does_not_count_as_one(moto: Moto, memory: Memory) -> None:
    moto.put(MANIFESTS + "README.md", b"# read me")
    moto.put(BLOBS + blob_of("base"), b"base")
    moto.now += timedelta(days=30)

    with pytest.raises(AssertionError, match="no index could be read"):
        _gc(moto, memory)

    assert BLOBS + blob_of("base") in moto.keys


def test_what_is_among_the_indexes_and_is_none_stays_as_it_is(moto: Moto, memory: Memory) -> None:
    moto.export("api", "base", "api")
    moto.export("web", "base", "web")
    moto.put(MANIFESTS + "maintained", b"# read me")
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    _gc(moto, memory)
    moto.now += timedelta(days=2)

    report = _gc(moto, memory)

    assert moto.keys[MANIFESTS + "maintained"].value == b"# read me"
    assert "app/manifests/maintained" in {one.subject for one in report.actions}
    assert BLOBS + blob_of("orphan") not in moto.keys


def test_a_clock_that_runs_ahead_makes_no_blob_older(moto: Moto, memory: Memory) -> None:
    moto.export("api", "base", "api")
    moto.now += timedelta(days=2)
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    moto.now += timedelta(hours=10)

    report = _gc(moto, memory, ahead=timedelta(hours=23))

    assert BLOBS + blob_of("orphan") in moto.keys
    assert [a for a in report.actions if a.kind == "delete" and isinstance(a.outcome, Skipped)]


def test_a_larger_export_before_an_index_is_read_back_is_kept(moto: Moto, memory: Memory) -> None:
    moto.export("api", "base", "api", "test")
    del moto.keys[BLOBS + blob_of("test")]
    larger: Event = ("download", 2, lambda: moto.export("api", *("base", "lib", "web", "docs")))

    _gc(moto, memory, larger)

    assert {blob_of("web"), blob_of("docs")} <= moto.blobs_of("api")


def test_names_with_nul_are_like_all_others_and_no_rule_lets_them_expire(
    moto: Moto, memory: Memory
) -> None:
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    moto.now += timedelta(days=2)
    moto.export("a\0b", "base", "api", "test")
    moto.export("web", "base", "web")
    moto.put(BLOBS + "other\0tool", b"other")
    del moto.keys[BLOBS + blob_of("test")]
    _gc(moto, memory)
    moto.now += timedelta(days=31)
    moto.write("web", "base", "web")

    report = _gc(moto, memory, rules=[{"prefix": "app/", "unused_for": "30d"}])

    assert moto.blobs_of("a\0b") == {blob_of("base"), blob_of("api")}
    assert BLOBS + blob_of("orphan") not in moto.keys
    assert moto.keys[BLOBS + "other\0tool"].value == b"other"
    skipped = [one.subject for one in report.actions if isinstance(one.outcome, Skipped)]
    assert BLOBS + r"other\x00tool" in skipped


def test_a_download_that_breaks_off_is_an_error_in_one_line() -> None:
    async def download(url: str) -> None:
        async with open_bucket(Address(BUCKET, "", "us-east-1", url, path_style=True)) as bucket:
            await bucket.get("key", limit=10_000)

    with half_a_body() as url, pytest.raises(StoreError, match=r"^key: "):
        anyio.run(download, url)


@pytest.mark.parametrize(
    ("key", "problem"), [("app/blobs/x", "breaks off"), ("other/x", "ignores prefixes")]
)
def test_a_list_that_cannot_be_right_is_an_error(key: str, problem: str) -> None:
    async def read(url: str) -> None:
        async with open_bucket(Address(BUCKET, "", "us-east-1", url, path_style=True)) as bucket:
            with anyio.fail_after(10):
                async for _ in bucket.list("app/blobs/"):
                    pass

    with one_page(key) as url, pytest.raises(StoreError, match=problem):
        anyio.run(read, url)


def test_what_an_index_needs_that_only_builds_can_read_stays(moto: Moto, memory: Memory) -> None:
    moto.export("api", "base", "api")
    moto.export("web", "base", "web")
    large = encode(built("base", "web", at=moto.now)) + b" " * 2**20
    moto.put(MANIFESTS + "web", large)

    for _ in range(4):
        _gc(moto, memory)
        moto.now += timedelta(hours=30)

    assert BLOBS + blob_of("web") in moto.keys
    assert moto.keys[MANIFESTS + "web"].value == large


def test_another_cache_below_the_indexes_is_refused_and_stays_as_it_is(
    moto: Moto, memory: Memory
) -> None:
    moto.export("api", "base", "api")
    other = MANIFESTS + "team/"
    moto.put(f"{other}blobs/{blob_of('web')}", b"web")
    moto.put(f"{other}manifests/web", encode(built("web", at=moto.now)))
    before = {key: moto.keys[key].value for key in moto.keys}

    with pytest.raises(AssertionError, match="are blobs of another cache: check"):
        _gc(moto, memory)

    assert {key: moto.keys[key].value for key in moto.keys} == before


def test_indexes_may_be_beside_the_folder_of_the_blobs(moto: Moto, memory: Memory) -> None:
    moto.export("api", "base", "api", "test")
    moto.put("app/web", encode(built("base", "api", "test", at=moto.now)))
    del moto.keys[BLOBS + blob_of("test")]

    report = _gc(moto, memory, manifests_prefixes=("",))

    assert import_index(moto.keys["app/web"].value).blobs == {blob_of("base"), blob_of("api")}
    assert moto.keys[BLOBS + blob_of("base")].value == b"base"
    assert not [one for one in report.actions if BLOBS in str(one.subject)]
