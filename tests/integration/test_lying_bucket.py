"""Object storages that answer in time, in form, and wrongly."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

from maintainer.cacheconfig import encode
from maintainer.model.outcome import Skipped
from maintainer.report import Report
from maintainer.stores.objects.store import ObjectStore
from maintainer.stores.s3.client import open_bucket
from tests.integration.simulated_runs import Memory
from tests.integration.world import START, blob_of, built
from tests.stores.contract import NO_GRACE
from tests.stores.runs import run_on
from tests.stores.s3 import BLOBS, BUCKET, MANIFESTS, Lie, Moto, Reply, a_server

_LIST = "list-type=2"


@pytest.fixture(scope="module")
def server() -> Iterator[Moto]:
    with a_server() as moto:
        yield moto


@pytest.fixture
def moto(server: Moto) -> Moto:
    server.empty()
    server.now = START
    server.lie, server.before = None, lambda: None
    server.refuses_conditions = server.ignores_conditions = False
    return server


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory.make(tmp_path, 1)[0]


def _gc(
    moto: Moto,
    memory: Memory,
    prefixes: tuple[str, ...] = ("manifests/",),
    rules: tuple[dict[str, str], ...] = (),
) -> Report:
    """Do a run without a grace period."""

    async def run() -> Report:
        address = moto.address(manifests_prefixes=prefixes)
        async with open_bucket(address) as bucket:
            store = ObjectStore(bucket, address.layout.naming("maintained"), max_index_size=2**20)
            room = {"rules": rules}
            return await run_on(store, memory, NO_GRACE, moto.now, export_wait=0, room=room)

    return anyio.run(run)


def _of_objects(pattern: bytes, other: bytes) -> Lie:
    """Say something else of all objects, in lists and look-ups."""

    def lie(what: str, true: Reply) -> Reply:
        status, headers, body = true
        return status, headers, re.sub(pattern, other, body) if _LIST in what else body

    return lie


def _without(key: str) -> Lie:
    """Leave an object out of all lists."""
    name = f"<Key>{key}</Key>".encode()

    def keep(one: re.Match[bytes]) -> bytes:
        return b"" if name in one[0] else one[0]

    def lie(what: str, true: Reply) -> Reply:
        status, headers, body = true
        said = re.sub(rb"<Contents>.*?</Contents>", keep, body, flags=re.DOTALL)
        return status, headers, said if _LIST in what else body

    return lie


def _instead(key: str, answer: Callable[[Reply], Reply]) -> Lie:
    """Answer a download in another way."""

    def lie(what: str, true: Reply) -> Reply:
        return answer(true) if what.startswith(f"GET /{BUCKET}/{key}?") else true

    return lie


def _run_for_days(moto: Moto, memory: Memory) -> list[Report]:
    """Do runs for longer than any grace period."""
    reports = []
    for hours in (0, 30, 30):
        moto.now += timedelta(hours=hours)
        reports.append(_gc(moto, memory))
    return reports


def test_an_index_that_a_list_leaves_out_ends_the_run_and_is_not_forgotten(
    moto: Moto, memory: Memory
) -> None:
    for prefix in ("manifests/", "others/"):
        moto.put(f"app/{prefix}web", encode(built("web", at=moto.now)))
    moto.export("api", "base", "api")
    moto.export("web", "base", "web")
    both = ("manifests/", "others/")
    _gc(moto, memory, both)

    for key in (MANIFESTS + "web", "app/others/web"):
        before = dict(moto.keys)
        moto.lie = _without(key)
        moto.now += timedelta(days=2)
        report = _gc(moto, memory, both)

        assert report.problems == (f"the list does not show {key}, which exists",)
        assert dict(moto.keys) == before
    moto.lie = None
    assert blob_of("web") in moto.blobs_of("maintained")


def test_an_index_that_was_deleted_or_replaced_by_something_else_ends_no_run(
    moto: Moto, memory: Memory
) -> None:
    for name in ("api", "web", "docs", "base"):
        moto.export(name, "base", name)
    _gc(moto, memory)
    del moto.keys[MANIFESTS + "web"]
    moto.put(MANIFESTS + "docs", b"a text")

    reports = [_gc(moto, memory) for _ in range(2)]

    assert [one.status for one in reports] == ["done", "done"]
    assert moto.blobs_of("maintained") == {blob_of("base"), blob_of("api")}


def _gone(_true: Reply) -> Reply:
    body = b"<Error><Code>NoSuchKey</Code></Error>"
    return "404 Not Found", {"content-type": "application/xml"}, body


def _cut(true: Reply) -> Reply:
    headers = {k: v for k, v in true[1].items() if k != "content-length"}
    return true[0], headers | {"connection": "close"}, true[2][:-30]


def _error(true: Reply) -> Reply:
    return true[0], true[1], b"<Error><Code>InternalError</Code></Error>"


def _nothing(true: Reply) -> Reply:
    return true[0], true[1], b"{}"


@pytest.mark.parametrize("answer", [_gone, _cut, _error, _nothing])
def test_an_export_that_is_listed_and_not_shown_is_neither_overwritten_nor_forgotten(
    moto: Moto, memory: Memory, answer: Callable[[Reply], Reply]
) -> None:
    moto.export("api", "base", "api")
    moto.export("web", "base", "web")
    _gc(moto, memory)
    moto.export("web", "base", "docs")
    before = dict(moto.keys)
    moto.lie = _instead(MANIFESTS + "web", answer)

    _run_for_days(moto, memory)

    assert dict(moto.keys) == before
    moto.lie = None
    _run_for_days(moto, memory)
    assert moto.blobs_of("web") == {blob_of(step) for step in ("base", "web", "docs")}
    assert moto.blobs_of("maintained") == moto.blobs_of("web") | {blob_of("api")}


@pytest.mark.parametrize("answer", ["gone", "old"])
def test_nothing_is_deleted_while_an_export_is_listed_and_not_shown(
    moto: Moto, memory: Memory, answer: str
) -> None:
    moto.export("api", "base", "api")
    moto.export("web", "base", "web")
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    _gc(moto, memory)
    moto.now += timedelta(days=2)
    old = moto.keys[MANIFESTS + "web"].value, moto.keys[MANIFESTS + "web"].etag

    def export() -> None:
        moto.before = lambda: None
        moto.lie = _instead(MANIFESTS + "web", show)
        moto.write("web", "base", "orphan")

    def show(true: Reply) -> Reply:
        times = {"etag": old[1], "last-modified": format_datetime(START, usegmt=True)}
        return _gone(true) if answer == "gone" else (true[0], true[1] | times, old[0])

    def before() -> None:
        if moto.request == ("GET", f"/{BUCKET}/app/blobs.maintainer"):
            export()

    moto.before = before
    report = _gc(moto, memory)

    assert BLOBS + blob_of("orphan") in moto.keys
    skipped = [one.outcome for one in report.actions if isinstance(one.outcome, Skipped)]
    assert "which is not shown" in str(skipped)


def test_a_service_that_knows_no_times_makes_nothing_old(moto: Moto, memory: Memory) -> None:
    moto.export("api", "base", "api")
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    times = {"last-modified": "Thu, 01 Jan 1970 00:00:00 GMT"}
    of_lists = _of_objects(rb"<LastModified>[^<]*", b"<LastModified>1970-01-01T00:00:00Z")

    def lie(what: str, true: Reply) -> Reply:
        status, headers, body = of_lists(what, true)
        return status, headers | (times if "last-modified" in headers else {}), body

    moto.lie = lie
    reports = _run_for_days(moto, memory)

    assert BLOBS + blob_of("orphan") in moto.keys
    assert [one.status for one in reports] == ["done"] * 3
    assert moto.blobs_of("maintained") == {blob_of("base"), blob_of("api")}


@pytest.mark.parametrize("size", [2**50 + 1, 2**63, 2**70])
def test_an_object_that_no_service_can_store_is_an_answer_that_proves_nothing(
    moto: Moto, memory: Memory, size: int
) -> None:
    moto.export("api", "base", "api")
    moto.lie = _of_objects(rb"<Size>\d+", f"<Size>{size}".encode())

    report = _gc(moto, memory)

    (problem,) = report.problems
    assert "the answer of the service is malformed" in problem


@pytest.mark.parametrize(
    "lie",
    [
        _of_objects(rb"(<Contents>.*?</Contents>)", rb"\1\1"),
        _of_objects(
            rb"(<Contents>.*?<LastModified>)([^<]*)(.*?</Contents>)",
            rb"\1\2\g<3>\g<1>2025-12-01T00:00:00Z\3",
        ),
        _of_objects(rb"&quot;|\"(?=</ETag>)|(?<=<ETag>)\"", b""),
    ],
    ids=["twice", "with two times", "tags without quotes"],
)
def test_lists_that_repeat_or_spell_in_another_way_cost_nothing(
    moto: Moto, memory: Memory, lie: Lie
) -> None:
    moto.export("api", "base", "api", "test")
    moto.export("web", "base", "web")
    moto.put(MANIFESTS + "notes", b"a text")
    del moto.keys[BLOBS + blob_of("test")]
    moto.lie = lie

    reports = _run_for_days(moto, memory)

    assert [one.status for one in reports] == ["done"] * 3
    assert moto.blobs_of("api") == {blob_of("base"), blob_of("api")}
    assert moto.blobs_of("maintained") == {blob_of(step) for step in ("base", "api", "web")}


def test_a_blob_that_is_new_is_not_old_because_the_clock_of_the_service_was_wrong(
    moto: Moto, memory: Memory
) -> None:
    moto.export("api", "base", "api")
    for days in (0, 9):
        moto.now += timedelta(days=days)
        _gc(moto, memory)
    moto.now -= timedelta(days=8)
    moto.put(BLOBS + blob_of("exported"), b"exported")
    moto.now += timedelta(days=8, hours=1)

    _gc(moto, memory)

    assert BLOBS + blob_of("exported") in moto.keys
    moto.now += timedelta(hours=27)
    _gc(moto, memory)
    assert BLOBS + blob_of("exported") not in moto.keys


_EXPIRE = ({"prefix": MANIFESTS, "unused_for": "30d"},)


def _blobs(*steps: str) -> set[str]:
    return {blob_of(step) for step in steps}


@pytest.mark.parametrize("content", [b"", b"\0" * 800], ids=["empty", "NULs"])
@pytest.mark.parametrize("name", ["web", "maintained"])
def test_an_index_that_lost_its_content_is_restored_from_memory(
    moto: Moto, memory: Memory, name: str, content: bytes
) -> None:
    for one in ("api", "web"):
        moto.export(one, "base", one)
    _gc(moto, memory)
    moto.put(MANIFESTS + name, content)

    for _ in range(3):
        moto.now += timedelta(days=2)
        _gc(moto, memory)

    assert moto.blobs_of("web") == _blobs("base", "web")
    assert moto.blobs_of("maintained") == _blobs("base", "api", "web")


def test_a_rule_lets_only_indexes_expire(moto: Moto, memory: Memory) -> None:
    image = {"schemaVersion": 2, "layers": [{"digest": blob_of("x"), "size": 1}]}
    others = {"README.md": b"# read me", "folder/": b"", "image": json.dumps(image).encode()}
    for name, content in others.items():
        moto.put(MANIFESTS + name, content)
    for name in ("api", "old"):
        moto.export(name, "base", name)
    _gc(moto, memory, rules=_EXPIRE)
    moto.now += timedelta(days=31)
    moto.export("api", "base", "api")

    _gc(moto, memory, rules=_EXPIRE)

    assert {MANIFESTS + name for name in others} <= moto.keys.keys()
    assert MANIFESTS + "old" not in moto.keys


def test_names_expire_where_the_service_knows_no_conditions(moto: Moto, memory: Memory) -> None:
    moto.refuses_conditions = True
    for name in ("old", "older"):
        moto.export(name, "base", name)
    _gc(moto, memory, rules=_EXPIRE)
    moto.now += timedelta(days=31)
    moto.export("main", "base", "main")
    moto.now += timedelta(days=2)

    report = _gc(moto, memory, rules=_EXPIRE)

    assert report.status == "done", report.problems
    assert MANIFESTS + "old" not in moto.keys


def test_an_export_to_a_name_that_expires_stays_where_the_service_knows_no_conditions(
    moto: Moto, memory: Memory
) -> None:
    moto.refuses_conditions = True
    names = ("old1", "old2", "old3")
    for name in names:
        moto.export(name, "base", name)
    _gc(moto, memory, rules=_EXPIRE)
    moto.now += timedelta(days=31)
    moto.export("main", "base", "main")
    moto.now += timedelta(days=2)
    exported: list[str] = []

    def export() -> None:
        if moto.request[0] == "DELETE" and not exported:
            exported.extend(one for one in names if not moto.request[1].endswith(one))
            for name in exported:
                moto.export(name, "base", "new")

    moto.before = export
    _gc(moto, memory, rules=_EXPIRE)

    assert {MANIFESTS + name for name in exported} <= moto.keys.keys()
    assert exported


def test_a_service_that_requires_md5_of_lists_of_deletions_gets_it(
    moto: Moto, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = DomainDispatcherApplication.__call__

    def answer(self: Any, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        is_deletion = environ["REQUEST_METHOD"] == "POST" and "delete" in environ["QUERY_STRING"]
        if is_deletion and "HTTP_CONTENT_MD5" not in environ:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("400 Bad Request", [("content-type", "application/xml")])
            return [b"<Error><Code>MissingContentMD5</Code></Error>"]
        return work(self, environ, start)

    monkeypatch.setattr(DomainDispatcherApplication, "__call__", answer)
    moto.export("web", "base", "web", "gone")
    del moto.keys[BLOBS + blob_of("gone")]
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    for _ in range(2):
        _gc(moto, memory)
        moto.now += timedelta(days=2)

    assert moto.blobs_of("web") == _blobs("base", "web")
    assert BLOBS + blob_of("orphan") not in moto.keys
    assert not [key for key in moto.keys if "probe" in key]


def test_an_index_that_is_archived_keeps_all_blobs_and_stops_no_repair(
    moto: Moto, memory: Memory
) -> None:
    for name in ("web", "old"):
        moto.export(name, "base", name)
    _gc(moto, memory)
    del moto.keys[BLOBS + blob_of("web")]
    moto.put(BLOBS + blob_of("orphan"), b"orphan")
    moto.export("old", "base", "older")
    archived = b"<Error><Code>InvalidObjectState</Code></Error>"
    there = f"GET /{BUCKET}/{MANIFESTS}old?"
    headers = {"content-type": "application/xml"}
    moto.lie = lambda what, true: (
        ("403 Forbidden", headers, archived) if what.startswith(there) else true
    )
    for _ in range(2):
        moto.now += timedelta(days=2)
        report = _gc(moto, memory)

        assert report.status == "done", report.problems

    assert moto.blobs_of("web") == _blobs("base")
    assert BLOBS + blob_of("orphan") in moto.keys


@pytest.mark.parametrize(
    ("spell", "where"),
    [
        (lambda tag: f"W/{tag}", "downloads"),
        (lambda tag: tag.strip('"'), "downloads"),
        (lambda tag: tag.strip('"'), "lists"),
    ],
    ids=["weak in downloads", "unquoted in downloads", "unquoted in lists"],
)
def test_a_tag_is_the_same_however_a_service_spells_it(
    moto: Moto, memory: Memory, spell: Callable[[str], str], where: str
) -> None:
    def lie(what: str, true: Reply) -> Reply:
        status, headers, body = true
        if where == "lists" and _LIST in what:
            body = body.replace(b"&#34;", b"").replace(b"&quot;", b"")
            return status, headers, re.sub(rb'<ETag>"?([^<"]*)"?</ETag>', rb"<ETag>\1</ETag>", body)
        if where == "downloads" and what.startswith("GET") and "etag" in headers:
            headers = headers | {"etag": spell(headers["etag"])}
        return status, headers, body

    moto.lie = lie
    moto.ignores_conditions = True
    moto.export("api", "base", "api", "gone")
    _gc(moto, memory)
    del moto.keys[BLOBS + blob_of("gone")]
    moto.now += timedelta(days=2)
    _gc(moto, memory)
    moto.now += timedelta(days=2)

    report = _gc(moto, memory)

    assert moto.blobs_of("api") == _blobs("base", "api")
    assert report.requests.counts.get("download", 0) == 0
