"""Registries that answer in form, and wrongly: what contradicts itself proves nothing."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime

import anyio
import pytest

from maintainer.report import Report
from tests.integration.directories import INDEX, MANIFEST
from tests.integration.simulated_runs import Memory
from tests.integration.world import START, blob_of
from tests.stores.docker_registry import DockerRegistry
from tests.stores.gate import Gate, Reply, a_gate
from tests.stores.ghcr import Packages
from tests.stores.place import How
from tests.stores.registry import a_store, put_image
from tests.stores.runs import run_on

pytest_plugins = ("tests.integration.registries",)

_MISSING: Reply = (404, {}, b"")
_PLACE = "/v2/octo/app-cache"


@pytest.fixture
def gate(registry: DockerRegistry) -> Iterator[Gate]:
    with a_gate(f"http://{registry.host}") as gate:
        yield gate


@pytest.fixture
def gate_of_ghcr(undeletable: DockerRegistry) -> Iterator[Gate]:
    with a_gate(f"http://{undeletable.host}") as gate:
        yield gate


def _gc(
    registry: DockerRegistry,
    gate: Gate,
    memory: Memory,
    hours: int = 0,
    *,
    tags: tuple[str, ...] = (),
    packages_url: str | None = None,
) -> Report:
    """Do a run without a grace period."""
    host = gate.url.removeprefix("http://")

    async def run() -> Report:
        address = replace(registry.address(tags=tags), host=host)
        async with a_store(address, lambda _kind: None, packages_url) as store:
            return await run_on(store, memory, How(timedelta(0)), START + timedelta(hours=hours))

    return anyio.run(run)


def _answering(what: str, reply: Reply) -> Callable[[str, Reply], Reply]:
    return lambda asked, true: reply if asked.startswith(what) else true


def test_a_blob_that_builds_can_download_is_not_missing(
    registry: DockerRegistry, gate: Gate, memory: Memory
) -> None:
    registry.build("api", "base", "api", "test")
    gate.lie = _answering(f"HEAD {_PLACE}/blobs/{blob_of('test')}", _MISSING)

    _gc(registry, gate, memory)

    assert registry.blobs_of("api") == {blob_of(step) for step in ("base", "api", "test")}


def _above(
    registry: DockerRegistry, digest: str, tag: str | None = None, kind: str = MANIFEST
) -> str:
    """Put an index that lists a manifest."""
    listed = [{"mediaType": kind, "digest": digest, "size": len(registry.content(digest))}]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
    return registry.put_manifest(json.dumps(index).encode(), tag)


_OTHER: Reply = (200, {"content-type": INDEX}, b'{"schemaVersion": 2, "manifests": []}')


@pytest.mark.parametrize("reply", [_MISSING, _OTHER], ids=["nothing", "something else"])
@pytest.mark.parametrize(("is_nested", "tags"), [(False, ("api",)), (True, ("api",)), (True, ())])
def test_what_an_index_may_lead_to_that_is_not_shown_stays(
    registry: DockerRegistry,
    gate: Gate,
    memory: Memory,
    *,
    is_nested: bool,
    tags: tuple[str, ...],
    reply: Reply,
) -> None:
    old = registry.build("api", "base", "api")
    _gc(registry, gate, memory, tags=tags)
    registry.build("api", "base", "web")
    hidden = _above(registry, old, None if is_nested else "release")
    if is_nested:
        _above(registry, hidden, "release", INDEX)
    gate.lie = _answering(f"GET {_PLACE}/manifests/{hidden}", reply)

    reports = [_gc(registry, gate, memory, hours, tags=tags) for hours in (1, 30, 60)]

    assert {one.status for one in reports} == {"done"}
    assert old in registry.manifests()
    sentences = [one.sentence for one in reports[-1].actions]
    assert "release could not be read this time and may need it" in sentences


@pytest.mark.parametrize("method", ["GET", "HEAD", ""])
@pytest.mark.parametrize("tags", [(), ("api",)])
def test_a_tag_that_exists_and_is_not_shown_is_not_deleted_with_its_manifest(
    registry: DockerRegistry, gate: Gate, memory: Memory, tags: tuple[str, ...], method: str
) -> None:
    old = registry.build("api", "base", "api")
    _gc(registry, gate, memory, tags=tags)
    registry.build("api", "base", "web")
    registry.put_manifest(registry.content(old), "keep")
    hidden = f"{method} {_PLACE}/manifests/keep".lstrip()
    gate.lie = lambda asked, true: _MISSING if asked.endswith(hidden) else true

    for hours in (1, 30, 60):
        _gc(registry, gate, memory, hours, tags=tags)

    assert registry.tags()["keep"] == old


@pytest.mark.parametrize("reply", [_MISSING, _OTHER], ids=["nothing", "something else"])
def test_what_an_index_without_a_tag_may_lead_to_that_is_not_shown_stays(
    undeletable: DockerRegistry, gate_of_ghcr: Gate, ghcr: Packages, memory: Memory, reply: Reply
) -> None:
    old = undeletable.build("api", "base", "api")
    undeletable.build("api", "base", "web")
    above = _above(undeletable, old)
    gate_of_ghcr.lie = _answering(f"GET {_PLACE}/manifests/{above}", reply)

    url = ghcr.url
    reports = [_gc(undeletable, gate_of_ghcr, memory, at, packages_url=url) for at in (48, 96)]

    assert old in undeletable.manifests()
    assert f"{above} is listed and not shown" in str(reports[-1].actions)


def test_what_an_index_leads_to_that_only_its_signature_names_stays(
    undeletable: DockerRegistry, gate_of_ghcr: Gate, ghcr: Packages, memory: Memory
) -> None:
    old = undeletable.build("api", "base", "api")
    undeletable.build("api", "base", "web")
    above = _above(undeletable, old)
    put_image(undeletable, f"{above.replace(':', '-')}.sig", "signature")

    for hours in (48, 96):
        _gc(undeletable, gate_of_ghcr, memory, hours, packages_url=ghcr.url)

    assert old in undeletable.manifests()


@pytest.mark.parametrize("is_there", [True, False])
def test_a_manifest_that_something_refers_to_stays(
    registry: DockerRegistry, gate: Gate, memory: Memory, is_there: bool
) -> None:
    old = registry.build("api", "base", "api")
    _gc(registry, gate, memory)
    registry.build("api", "base", "web")
    signature = {"mediaType": MANIFEST, "digest": blob_of("signature"), "size": 1}
    listed = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [signature] * is_there}
    reply = (200, {"content-type": INDEX}, json.dumps(listed).encode())
    gate.lie = _answering(f"GET {_PLACE}/referrers/{old}", reply)

    _gc(registry, gate, memory, 30)

    assert (old in registry.manifests()) == is_there


@pytest.mark.parametrize(
    "link",
    [
        '<{}>; rel = "next"',
        '<{}>; title="a, b"; rel="next"',
        '<{}>; rel="last next"',
        "<{}>; title=" + "x" * 5_000 + '; rel="next"',
        "<{}>; REL=NEXT",
        "<{}>; rel='next'",
        '<{}>; ref="next"',
        "<{}>; rel",
        "<{}>",
        "{}",
        "<{}>" + ";  " * 38 + '"',
    ],
    ids=lambda link: link[:24],
)
def test_a_list_of_tags_ends_where_the_registry_says_so(
    registry: DockerRegistry, gate: Gate, memory: Memory, link: str
) -> None:
    old = registry.build("api", "base", "api")
    _gc(registry, gate, memory, tags=("api",))
    registry.build("api", "base", "web")
    registry.put_manifest(registry.content(old), "zoo")
    where = f"{_PLACE}/tags/list?last=maintained"
    first = b'{"name": "octo/app-cache", "tags": ["api", "maintained"]}'
    page = (200, {"content-type": "application/json", "link": link.format(where)}, first)
    gate.lie = lambda asked, true: page if asked == f"GET {_PLACE}/tags/list" else true

    with suppress(AssertionError):  # What is not understood ends the run.
        for hours in (1, 30):
            _gc(registry, gate, memory, hours, tags=("api",))

    assert registry.tags()["zoo"] == old


def test_no_tag_is_written_whose_config_nobody_can_read(
    registry: DockerRegistry, gate: Gate, memory: Memory
) -> None:
    registry.build("api", "base", "api", "test")
    registry.delete_blob(blob_of("test"))
    before, known = registry.tags(), registry.blobs()

    def lie(what: str, true: Reply) -> Reply:
        is_new = what.startswith(f"GET {_PLACE}/blobs/") and what[-71:] not in known
        return _MISSING if is_new else true

    gate.lie = lie
    report = _gc(registry, gate, memory)

    assert registry.tags() == before
    assert report.problems[0] == "api was not written: its config was stored, and cannot be read"


_OF_ANOTHER: Reply = (200, {"content-type": MANIFEST}, b'{"schemaVersion": 2, "layers": []}')


@pytest.mark.parametrize("answer", [_MISSING, _OF_ANOTHER], ids=["missing", "another"])
@pytest.mark.parametrize("what", ["manifests", "blobs"])
def test_one_wrong_answer_loses_nothing_of_an_export(
    registry: DockerRegistry, gate: Gate, memory: Memory, what: str, answer: Reply
) -> None:
    registry.build("api", "base", "api")
    _gc(registry, gate, memory)
    exported = registry.build("api", "base", "web")
    config = json.loads(registry.content(exported))["config"]["digest"]
    asked = f"GET {_PLACE}/{what}/{config if what == 'blobs' else 'api'}"
    answers = [answer]

    def lie(what: str, true: Reply) -> Reply:
        return answers.pop() if answers and what == asked else true

    gate.lie = lie
    for hours in (1, 30):
        _gc(registry, gate, memory, hours)

    assert not answers
    assert registry.blobs_of("api") == {blob_of(step) for step in ("base", "api", "web")}
    assert registry.blobs_of("maintained") == registry.blobs_of("api")


@pytest.mark.parametrize(
    "reply",
    [
        (501, {"content-type": "application/json"}, b'{"errors":[{"code":"UNSUPPORTED"}]}'),
        (505, {}, b""),
        (401, {"www-authenticate": 'Basic realm="x"'}, b""),
        (200, {"content-type": "text/html"}, b"<html>"),
        (303, {"location": "/login"}, b""),
    ],
    ids=lambda reply: str(reply[0]),
)
def test_a_registry_without_a_list_of_referrers_may_answer_anything(
    registry: DockerRegistry, gate: Gate, memory: Memory, reply: Reply
) -> None:
    gate.lie = _answering(f"GET {_PLACE}/referrers/", reply)
    old = registry.build("api", "base", "api")
    _gc(registry, gate, memory)
    registry.build("api", "base", "web")

    report = _gc(registry, gate, memory, 30)

    assert report.status == "done"
    assert report.requests.retries == 0
    assert old not in registry.manifests()


@pytest.mark.parametrize("status", [503, 522, 530])
def test_a_manifest_stays_while_the_registry_cannot_say_what_refers_to_it(
    registry: DockerRegistry, gate: Gate, memory: Memory, status: int
) -> None:
    gate.lie = _answering(f"GET {_PLACE}/referrers/", (status, {}, b""))
    old = registry.build("api", "base", "api")
    _gc(registry, gate, memory)
    registry.build("api", "base", "web")

    report = _gc(registry, gate, memory, 30)

    assert report.status == "done"
    assert old in registry.manifests()


@pytest.mark.parametrize("tags", [(), ("api",)])
def test_a_tag_that_stays_hidden_is_reported_as_what_keeps_all_manifests(
    registry: DockerRegistry, gate: Gate, memory: Memory, tags: tuple[str, ...]
) -> None:
    registry.build("api", "base", "api")
    put_image(registry, "release", "image")
    _gc(registry, gate, memory, tags=tags)
    registry.build("api", "base", "web")
    gate.lie = lambda what, true: _MISSING if what.endswith("/manifests/release") else true

    report = _gc(registry, gate, memory, 30, tags=tags)

    assert report.verdict
    assert report.verdict.level == "attention"
    assert "release (its manifest is missing, so no manifest is deleted" in report.verdict.message


def test_an_answer_that_a_proxy_has_kept_tells_nothing_of_the_clock(
    registry: DockerRegistry, gate: Gate, memory: Memory
) -> None:
    registry.build("api", "base", "api")
    kept = {"date": format_datetime(START - timedelta(days=4), usegmt=True), "age": "345600"}
    gate.lie = lambda what, true: (
        (true[0], true[1] | kept, true[2]) if "/manifests/" in what else true
    )

    assert _gc(registry, gate, memory).status == "done"


@pytest.mark.parametrize(
    "link",
    [
        '<https://docs.test/é>; rel="help"',
        "<https://docs.test/?a;b>; rel=help",
        "<https://docs.test/>",
    ],
)
def test_a_link_to_something_else_is_no_next_page(
    registry: DockerRegistry, gate: Gate, memory: Memory, link: str
) -> None:
    registry.build("api", "base", "api")
    gate.lie = lambda what, true: (
        (true[0], true[1] | {"link": link}, true[2]) if "/tags/list" in what else true
    )

    assert _gc(registry, gate, memory).status == "done"


def test_a_proxy_that_says_how_old_its_answers_are_hides_no_clock_that_is_ahead(
    registry: DockerRegistry, gate: Gate, memory: Memory
) -> None:
    registry.build("api", "base", "api")
    fresh = {"date": format_datetime(START, usegmt=True), "age": "0"}
    gate.lie = lambda _, true: (true[0], true[1] | fresh, true[2])

    report = _gc(registry, gate, memory, 40)

    assert report.problems[0].endswith(" ahead of the service's: set it")
