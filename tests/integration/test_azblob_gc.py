"""Runs on a container, over HTTP, against Azurite."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from azure.storage.blob import BlobLeaseClient, RetentionPolicy, generate_container_sas
from azure.storage.blob.aio import ContainerClient
from msgspec.structs import replace as change
from typer.testing import CliRunner

from maintainer.cacheconfig import encode
from maintainer.cli.app import app
from maintainer.errors import StoreError
from maintainer.model.outcome import Skipped
from maintainer.model.reason import (
    BlobsArchived,
    DeletedKept,
    NamesDeleted,
    SharedNames,
    SweepUnchecked,
)
from maintainer.report import Report
from maintainer.serve.discovery import search
from maintainer.settings import DiscoverSettings
from maintainer.stores.azblob.client import KEY, Container, open_container
from maintainer.stores.objects.store import ObjectStore
from tests.integration.invariants import import_index
from tests.integration.simulated_runs import Memory
from tests.integration.world import START, blob_of, built
from tests.stores.azblob import (
    ACCOUNT,
    ACCOUNT_KEY,
    BLOBS,
    CONTAINER,
    MANIFESTS,
    Azurite,
    Steps,
    a_server,
)
from tests.stores.contract import NO_GRACE
from tests.stores.runs import run_on

_ORPHAN = BLOBS + blob_of("orphan")


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Azurite]:
    with a_server(request.config.cache.mkdir("azurite")) as azurite:
        yield azurite


@pytest.fixture
def azurite(server: Azurite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Azurite:
    monkeypatch.chdir(tmp_path)
    server.now = START
    server.empty()
    return server


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory.make(tmp_path, 1)[0]


def _export(azurite: Azurite, name: str, *steps: str) -> None:
    for step in steps:
        azurite.put(BLOBS + blob_of(step), step.encode())
    _write(azurite, name, *steps)


def _export_hourly(azurite: Azurite, *names: str) -> None:
    """Export to one name after the other; the last export is two hours ago."""
    for name in names:
        _export(azurite, name, "base", name)
        azurite.now += timedelta(hours=1)
    azurite.now += timedelta(hours=1)


def _write(azurite: Azurite, name: str, *steps: str) -> None:
    azurite.put(MANIFESTS + name, encode(built(*steps, at=azurite.now)))


def _blobs(azurite: Azurite, name: str) -> frozenset[str]:
    return import_index(azurite.get(MANIFESTS + name)).blobs


Event = tuple[str, int, Callable[[], object]]
"""What happens before which request of a kind."""


async def _run(
    azurite: Azurite,
    memory: Memory,
    opened: AbstractAsyncContextManager[Container],
    event: Event | None,
    more: Mapping[str, Any],
) -> Report:
    chosen = dict(more)
    settings: dict[str, object] = {
        "max_requests": chosen.pop("max_requests", None),
        "export_wait": 0,
    }
    ahead, rules = chosen.pop("ahead", timedelta(0)), chosen.pop("rules", ())
    settings["room"] = {"rules": rules}
    pending = [event] if event else []
    async with opened as container:

        def act() -> None:
            kind, count, happen = pending[0] if pending else ("", 0, None)
            if happen and container.requests.counts[kind] == count:
                pending.clear()
                happen()

        container.requests = Steps(before=act)
        layout = azurite.address(**chosen).layout
        store = ObjectStore(container, layout, max_index_size=2**20)
        report = await run_on(store, memory, NO_GRACE, azurite.now + ahead, **settings)
    assert report.status == "done", report.problems
    assert not pending
    return report


def _gc(azurite: Azurite, memory: Memory, event: Event | None = None, **more: Any) -> Report:
    """Do a run without a grace period."""
    return anyio.run(_run, azurite, memory, azurite.open(), event, more)


def _skipped(report: Report) -> list[str]:
    return [one.outcome_sentence for one in report.actions if isinstance(one.outcome, Skipped)]


def _orphan_that_is_due(azurite: Azurite, memory: Memory) -> None:
    """Store a blob that the next run deletes."""
    _export(azurite, "api", "base", "api")
    azurite.put(_ORPHAN, b"orphan")
    _gc(azurite, memory)
    azurite.now += timedelta(hours=3)


def test_a_run_of_the_command_line_repairs_merges_and_keeps_what_it_sees_for_the_first_time(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    azurite.put(_ORPHAN, b"orphan")
    azurite.now = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)
    _export(azurite, "api", "base", "api", "test")
    _export(azurite, "feature/x", "base", "web")
    azurite.delete(BLOBS + blob_of("test"))
    azurite.now += timedelta(days=2)
    place = f"azblob://{ACCOUNT}/{CONTAINER}/app?account_url={azurite.url}"

    monkeypatch.setenv("MAINTAINER_EXPORT_WAIT", "0")
    done = CliRunner().invoke(app, ["gc", "--store", place, "--grace", "0s"])

    assert done.exit_code == 0, done.output
    assert ACCOUNT_KEY not in done.output
    assert _blobs(azurite, "api") == {blob_of("base"), blob_of("api")}
    assert _blobs(azurite, "maintained") == {blob_of(step) for step in ("base", "api", "web")}
    assert _ORPHAN in azurite.listed
    assert not [key for key in azurite.listed if "probe" in key]


def test_a_blob_goes_only_after_it_was_seen_unreferenced_for_as_long_as_an_export_takes(
    azurite: Azurite, memory: Memory
) -> None:
    _export(azurite, "api", "base", "api")
    azurite.put(_ORPHAN, b"orphan")
    azurite.now += timedelta(days=30)

    for hours, stays in ((0, True), (1, True), (1, False)):
        azurite.now += timedelta(hours=hours)
        report = _gc(azurite, memory)

        assert (_ORPHAN in azurite.listed) == stays
        assert report.grace_seconds == 2 * 3600
        assert report.store.noun == "container"
    assert {BLOBS + blob_of("base"), BLOBS + blob_of("api")} <= azurite.listed.keys()


def test_what_is_among_the_indexes_and_is_none_is_read_once_and_is_no_export(
    azurite: Azurite, memory: Memory
) -> None:
    azurite.put(MANIFESTS + "README.md", b"# read me")
    _orphan_that_is_due(azurite, memory)

    report = _gc(azurite, memory)

    assert _ORPHAN not in azurite.listed
    assert not [one for one in report.notes if isinstance(one.reason, SweepUnchecked)]
    assert report.requests.counts["download"] == 2  # And one of the claim.


@pytest.mark.parametrize("how", ["touched", "written", "referenced"])
def test_a_blob_that_a_build_needs_since_the_run_began_stays(
    azurite: Azurite, memory: Memory, how: str
) -> None:
    _orphan_that_is_due(azurite, memory)
    touch = azurite.client.get_blob_client(_ORPHAN).set_blob_metadata
    happens: dict[str, Event] = {
        "touched": ("delete", 1, lambda: touch({"updated": "now"})),
        "written": ("delete", 1, lambda: azurite.put(_ORPHAN, b"orphan")),
        "referenced": ("list", 3, lambda: _write(azurite, "web", "base", "orphan")),
    }

    report = _gc(azurite, memory, happens[how])

    assert _ORPHAN in azurite.listed
    assert len(_skipped(report)) == 1


@pytest.mark.parametrize(("how", "why"), [("lease", "holds a lease"), ("snapshot", "snapshots")])
def test_what_the_service_does_not_delete_stays_and_everything_else_goes(
    azurite: Azurite, memory: Memory, how: str, why: str
) -> None:
    _orphan_that_is_due(azurite, memory)
    azurite.now -= timedelta(hours=3)
    for one in ("a", "b"):
        azurite.put(BLOBS + blob_of(one), b"orphan")
    _gc(azurite, memory)
    azurite.now += timedelta(hours=3)
    blob = azurite.client.get_blob_client(_ORPHAN)
    lease = BlobLeaseClient(blob)
    if how == "lease":
        lease.acquire()
    else:
        blob.create_snapshot()

    report = _gc(azurite, memory)

    assert why in _skipped(report)[0]
    assert {key for key in azurite.listed if key.startswith(BLOBS)} == {
        _ORPHAN, BLOBS + blob_of("base"), BLOBS + blob_of("api"),
    }  # fmt: skip
    if how == "lease":
        lease.release()


def test_an_index_that_is_leased_is_an_error_that_names_it(
    azurite: Azurite, memory: Memory
) -> None:
    _export(azurite, "api", "base", "api", "test")
    azurite.delete(BLOBS + blob_of("test"))
    lease = BlobLeaseClient(azurite.client.get_blob_client(MANIFESTS + "api"))
    lease.acquire()

    with pytest.raises(AssertionError, match="app/manifests/api: somebody holds a lease on it"):
        _gc(azurite, memory)

    lease.release()


def test_a_name_that_a_build_overwrites_while_it_is_repaired_keeps_the_export(
    azurite: Azurite, memory: Memory
) -> None:
    _export(azurite, "api", "base", "api", "test")
    azurite.delete(BLOBS + blob_of("test"))

    _gc(azurite, memory, ("upload", 6, lambda: _export(azurite, "api", "base", "web")))

    assert blob_of("web") in _blobs(azurite, "api")
    assert blob_of("test") not in _blobs(azurite, "api")


def test_an_index_that_is_written_during_the_sweep_is_healed(
    azurite: Azurite, memory: Memory
) -> None:
    _orphan_that_is_due(azurite, memory)

    _gc(azurite, memory, ("list", 4, lambda: _write(azurite, "web", "base", "orphan")))

    assert _ORPHAN not in azurite.listed
    assert _blobs(azurite, "web") == {blob_of("base")}


def test_manifests_under_another_prefix_protect_the_blobs_that_they_share(
    azurite: Azurite, memory: Memory
) -> None:
    _export(azurite, "api", "base", "api")
    azurite.put(BLOBS + blob_of("web"), b"web")
    azurite.put("app/others/web", encode(built("web", at=azurite.now)))
    both = ("manifests", "others")
    for _ in range(2):
        _gc(azurite, memory, manifests_prefixes=both)
        azurite.now += timedelta(hours=48)

    assert BLOBS + blob_of("web") in azurite.listed
    assert blob_of("web") in _blobs(azurite, "maintained")


def test_what_nobody_can_download_is_dropped_from_indexes_and_kept(
    azurite: Azurite, memory: Memory
) -> None:
    _export(azurite, "api", "base", "api", "test")
    azurite.client.get_blob_client(BLOBS + blob_of("test")).set_standard_blob_tier("Archive")

    for _ in range(2):
        report = _gc(azurite, memory)
        azurite.now += timedelta(hours=30)

        assert BlobsArchived(1) in [note.reason for note in report.notes]
    assert _blobs(azurite, "api") == {blob_of("base"), blob_of("api")}
    assert BLOBS + blob_of("test") in azurite.listed


def test_an_index_that_is_archived_keeps_everything_that_it_may_need(
    azurite: Azurite, memory: Memory
) -> None:
    _export(azurite, "api", "base", "api")
    _export(azurite, "web", "base", "web")
    azurite.client.get_blob_client(MANIFESTS + "web").set_standard_blob_tier("Archive")

    for _ in range(3):
        _gc(azurite, memory)
        azurite.now += timedelta(hours=30)

    assert BLOBS + blob_of("web") in azurite.listed


def test_names_that_a_rule_lets_expire_go_and_then_what_only_they_need(
    azurite: Azurite, memory: Memory
) -> None:
    _export_hourly(azurite, "sha-1", "sha-2", "sha-3", "main")
    rules = [{"prefix": MANIFESTS + "sha-", "keep_newest": 1}]

    report = _gc(azurite, memory, rules=rules)

    names = {key.removeprefix(MANIFESTS) for key in azurite.listed if key.startswith(MANIFESTS)}
    assert names == {"sha-3", "main", "maintained"}
    gone = [one.sentence for one in report.actions if one.kind == "delete"]
    assert gone == ["its ref has 1 newer entry app/manifests/sha-…, and a rule keeps no more"] * 2
    for _ in range(3):
        azurite.now += timedelta(hours=30)
        _gc(azurite, memory, rules=rules)
    left = {blob_of(one) for one in ("base", "sha-3", "main")}
    assert {key.removeprefix(BLOBS) for key in azurite.listed if key.startswith(BLOBS)} == left
    assert _blobs(azurite, "maintained") == left


def test_a_name_that_expires_while_a_build_exports_to_it_stays(
    azurite: Azurite, memory: Memory
) -> None:
    _export(azurite, "api", "base", "api")
    _gc(azurite, memory)
    azurite.now += timedelta(days=31)
    rules = [{"prefix": MANIFESTS, "unused_for": "30d"}]
    export: Event = ("delete", 1, lambda: _export(azurite, "api", "base", "web"))

    report = _gc(azurite, memory, export, rules=rules)

    assert blob_of("web") in _blobs(azurite, "api")
    assert _blobs(azurite, "maintained")
    assert _skipped(report) == ["skipped: a build has written it since it was looked up"]


def test_what_a_rule_lets_expire_is_not_called_deleted_by_others_and_the_rest_is(
    azurite: Azurite, memory: Memory
) -> None:
    _export_hourly(azurite, "sha-1", "sha-2", "web", "api")
    rules = [{"prefix": MANIFESTS + "sha-", "keep_newest": 1}]
    _gc(azurite, memory, rules=rules)
    azurite.delete(MANIFESTS + "web")
    azurite.now += timedelta(hours=1)

    report = _gc(azurite, memory, rules=rules)
    azurite.now += timedelta(hours=1)
    after = _gc(azurite, memory, rules=rules)

    assert [one.reason for one in report.notes] == [NamesDeleted(("web",))]
    assert after.notes == ()
    assert blob_of("web") not in _blobs(azurite, "maintained")


def test_two_images_that_export_to_one_name_are_reported(azurite: Azurite, memory: Memory) -> None:
    for commit in range(4):
        image = ("api", "docs")[commit % 2]
        of_image = (f"{image}-packages", f"{image}-config", f"{image}-{commit}")
        _export(azurite, "web", "base", *of_image)
        _export(azurite, "alone", "base", "alone", f"alone-{commit}")
        azurite.now += timedelta(hours=1)
        report = _gc(azurite, memory)

        shared = [SharedNames(("web",))] if commit == 3 else []
        assert [note.reason for note in report.notes] == shared


def test_one_image_whose_layers_are_compressed_in_two_ways_is_one_image(
    azurite: Azurite, memory: Memory
) -> None:
    for commit in range(6):
        form = ("gzip", "zstd")[commit % 2]
        config = built("base", "packages", "config", f"{commit}", at=azurite.now)
        blobs = {layer.blob: blob_of(f"{layer.blob} as {form}") for layer in config.layers}
        layers = tuple(change(layer, blob=blobs[layer.blob]) for layer in config.layers)
        for blob in blobs.values():
            azurite.put(BLOBS + blob, blob.encode())
        azurite.put(MANIFESTS + "web", encode(change(config, layers=layers)))
        azurite.now += timedelta(hours=1)

        assert _gc(azurite, memory).notes == ()


def test_soft_delete_is_in_the_report(azurite: Azurite, memory: Memory) -> None:
    _export(azurite, "api", "base", "api")
    account = azurite.client._get_blob_service_client()
    account.set_service_properties(delete_retention_policy=RetentionPolicy(enabled=True, days=7))

    report = _gc(azurite, memory)
    account.set_service_properties(delete_retention_policy=RetentionPolicy(enabled=False))

    assert [note.reason for note in report.notes] == [DeletedKept(7)]
    assert "deletions free nothing until then" in report.notes[0].sentence
    assert not report.verdict or report.verdict.level == "good"


def _with_permissions(azurite: Azurite, permissions: str) -> Container:
    """Connect with a signature that allows only some things."""
    now = datetime.now(UTC)
    token = generate_container_sas(
        ACCOUNT, CONTAINER, account_key=ACCOUNT_KEY, permission=permissions,
        start=now - timedelta(days=9000), expiry=now + timedelta(days=9000),
    )  # fmt: skip
    return Container(ContainerClient(azurite.url, CONTAINER, credential=token, retry_total=0))


_PAGE = Path(__file__).parents[2] / "docs" / "azure.md"
_ALLOWED = {"read": "rl", "write": "cw", "delete": "d"}
"""What a signature must allow for an action of a role."""


def test_the_documented_permissions_are_enough_and_fewer_are_reported(
    azurite: Azurite, memory: Memory
) -> None:
    _orphan_that_is_due(azurite, memory)
    azurite.delete(BLOBS + blob_of("api"))
    actions = [
        line.strip(' ",').rpartition("/")[2]
        for line in _PAGE.read_text().splitlines()
        if "containers/blobs/" in line
    ]
    enough = "".join(_ALLOWED[one] for one in actions)

    for permissions in ("r", "rl"):
        with pytest.raises(AssertionError, match="Authorization"):
            anyio.run(_run, azurite, memory, _opened(azurite, permissions), None, {})
    anyio.run(_run, azurite, memory, _opened(azurite, enough), None, {})

    assert _blobs(azurite, "api") == {blob_of("base")}
    assert _ORPHAN not in azurite.listed


def _opened(azurite: Azurite, permissions: str) -> AbstractAsyncContextManager[Container]:
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def opened() -> Any:
        container = _with_permissions(azurite, permissions)
        async with container._client:
            yield container

    return opened()


def test_blobs_without_any_index_are_a_wrong_prefix_and_nothing_is_deleted(
    azurite: Azurite, memory: Memory
) -> None:
    _export(azurite, "api", "base", "api")
    azurite.now += timedelta(days=30)
    before = azurite.listed.keys()

    with pytest.raises(AssertionError, match="no index could be read under app/indexes/: check"):
        _gc(azurite, memory, manifests_prefixes=("indexes",))

    assert azurite.listed.keys() == before


def test_a_run_that_has_nothing_to_do_lists_twice_and_ends(
    azurite: Azurite, memory: Memory
) -> None:
    _export(azurite, "api", "base", "api")
    for _ in range(2):
        _gc(azurite, memory)
        azurite.now += timedelta(hours=3)

    report = _gc(azurite, memory)

    assert report.requests.counts == {"list": 2}


def test_a_clock_that_runs_ahead_makes_no_blob_older(azurite: Azurite, memory: Memory) -> None:
    _export(azurite, "api", "base", "api")
    azurite.now += timedelta(days=2)
    azurite.put(_ORPHAN, b"orphan")
    _gc(azurite, memory)

    report = _gc(azurite, memory, ahead=timedelta(hours=23))

    assert _ORPHAN in azurite.listed
    assert _skipped(report) == ["skipped: a build may have found it before it exports"]


def test_names_that_are_odd_are_read_and_written_to_the_letter(
    azurite: Azurite, memory: Memory
) -> None:
    odd = ["1 + 1 = 2", "ü%2F?#&", "a/b//c", "x\\y", "dot."]
    for name in odd:
        _export(azurite, name, "base", "api", "test")
    azurite.delete(BLOBS + blob_of("test"))

    _gc(azurite, memory)

    for name in (*odd, "maintained"):
        assert _blobs(azurite, name) == {blob_of("base"), blob_of("api")}


def _fails(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch, more: Mapping[str, str], **address: Any
) -> str:
    """Return the error of a look-up with other credentials or another address."""
    for name, value in more.items():
        monkeypatch.setenv(name, value)

    async def look() -> None:
        async with open_container(azurite.address(**address)) as container:
            await container.head("x")
            async for _ in container.list("x"):
                pass

    with pytest.raises(StoreError) as error:
        anyio.run(look)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_credentials_that_do_not_fit_are_an_error_that_does_not_show_them(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = ACCOUNT_KEY[::-1].lstrip("=") + "=="
    assert "AuthorizationFailure" in (problem := _fails(azurite, monkeypatch, {KEY: wrong}))
    assert wrong not in problem
    assert _fails(azurite, monkeypatch, {KEY: "not base64"}) == f"{KEY} is not a valid account key"


def test_without_credentials_one_line_says_which_there_are(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY)
    source = {"AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential"}

    problem = _fails(azurite, monkeypatch, source, account_url="https://localhost:1")

    assert "there are no Azure credentials: set AZURE_STORAGE_KEY" in problem


def test_a_clock_that_is_far_ahead_ends_the_run(azurite: Azurite, memory: Memory) -> None:
    _export(azurite, "api", "base", "api")
    azurite.put(_ORPHAN, b"orphan")

    with pytest.raises(AssertionError, match="clock is 35 days ahead of the service's: set it"):
        _gc(azurite, memory, ahead=timedelta(days=35))

    assert _ORPHAN in azurite.listed


def test_where_no_cache_is_found_one_line_says_so(azurite: Azurite) -> None:
    azurite.now = datetime.now(UTC)
    _export(azurite, "api", "base", "api")
    place = f"azblob://{ACCOUNT}/{CONTAINER}/ap?account_url={azurite.url}"

    done = CliRunner().invoke(app, ["gc", "--store", place])

    assert done.exit_code == 0, done.output
    assert "Needs attention: No cache was found in ap/manifests/." in done.output


def test_a_container_that_does_not_exist_is_not_empty(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    azurite.client.delete_container()

    problem = _fails(azurite, monkeypatch, {})

    azurite.client.create_container()
    assert f"no bucket or container {CONTAINER} (ContainerNotFound): check the addr" in problem


def test_each_folder_of_a_container_with_an_index_is_found(azurite: Azurite) -> None:
    for key in ("web/manifests/buildkit", "api/manifests/x", "old/blobs/sha256:0", "readme"):
        azurite.put(f"caches/{key}", b"{}")
    store = f"azblob://{azurite.address().account}/{CONTAINER}/caches/*?account_url={azurite.url}"

    done = anyio.run(search, DiscoverSettings(name="found", store=store))

    assert done.problem is None
    assert [(one.name, one.store) for one in done.found] == [
        (name, store.replace("*", name)) for name in ("api", "web")
    ]
