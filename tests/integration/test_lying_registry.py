"""Registries that answer in form, and wrongly: what contradicts itself proves nothing."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from maintainer.report import Report
from tests.integration.directories import INDEX, MANIFEST
from tests.integration.simulated_runs import Memory
from tests.integration.world import START, blob_of
from tests.stores.docker_registry import DockerRegistry, a_registry
from tests.stores.gate import Gate, Reply, a_gate
from tests.stores.place import How
from tests.stores.registry import a_store
from tests.stores.runs import run_on

_MISSING: Reply = (404, {}, b"")
_PLACE = "/v2/octo/app-cache"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with a_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def registry(server: DockerRegistry) -> DockerRegistry:
    server.empty()
    return server


@pytest.fixture
def gate(registry: DockerRegistry) -> Iterator[Gate]:
    with a_gate(f"http://{registry.host}") as gate:
        yield gate


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory.make(tmp_path, 1)[0]


def _gc(
    registry: DockerRegistry, gate: Gate, memory: Memory, hours: int = 0, tags: tuple[str, ...] = ()
) -> Report:
    """Do a run without a grace period."""
    host = gate.url.removeprefix("http://")

    async def run() -> Report:
        address = replace(registry.address(tags=tags), host=host)
        async with a_store(address, lambda _kind: None) as store:
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


def test_what_an_index_may_lead_to_that_is_not_shown_stays(
    registry: DockerRegistry, gate: Gate, memory: Memory
) -> None:
    old = registry.build("api", "base", "api")
    _gc(registry, gate, memory, tags=("api",))
    registry.build("api", "base", "web")
    size = len(registry.content(old))
    listed = [{"mediaType": MANIFEST, "digest": old, "size": size}]
    above = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
    release = registry.put_manifest(json.dumps(above).encode(), "release")
    gate.lie = _answering(f"GET {_PLACE}/manifests/{release}", _MISSING)

    reports = [_gc(registry, gate, memory, hours, tags=("api",)) for hours in (1, 30, 60)]

    assert old in registry.manifests()
    sentences = [one.sentence for one in reports[-1].actions]
    assert "release could not be read this time and may need it" in sentences


def test_a_tag_that_exists_and_is_not_shown_is_not_deleted_with_its_manifest(
    registry: DockerRegistry, gate: Gate, memory: Memory
) -> None:
    old = registry.build("api", "base", "api")
    _gc(registry, gate, memory)
    registry.build("api", "base", "web")
    registry.put_manifest(registry.content(old), "keep")
    gate.lie = _answering(f"GET {_PLACE}/manifests/keep", _MISSING)

    for hours in (1, 30, 60):
        _gc(registry, gate, memory, hours)

    assert registry.tags()["keep"] == old


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
