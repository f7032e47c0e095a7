"""Runs on a repository of Debian's docker-registry, over HTTP."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from maintainer.cacheconfig import NO_REF, IndexId, Scope, stamp_of
from maintainer.cli.app import app
from maintainer.errors import LeaseLostError, UnknownCacheError
from maintainer.graph.tables import ENTRY
from maintainer.model.outcome import Done, Outcome, Skipped
from maintainer.model.reason import (
    DeletionRefused,
    InlineCaches,
    MergeOverwritten,
    MergeTakenOver,
    UntaggedUnknown,
)
from maintainer.report import Report
from maintainer.stores.distribution.client import Client
from tests.integration.directories import INDEX, MANIFEST
from tests.integration.simulated_runs import Memory
from tests.integration.world import START, blob_of
from tests.stores.docker_registry import DockerRegistry, a_registry
from tests.stores.ghcr import TOKEN, Packages, packages_of
from tests.stores.place import How
from tests.stores.registry import a_store, put_image
from tests.stores.runs import run_leased, run_on, take_over
from tests.stores.token_service import a_token_service

pytest_plugins = ("tests.integration.registries",)

_PAGE = Path(__file__).parents[2] / "docs" / "registries.md"

Event = tuple[str, int, Callable[[], object]]
"""What happens before which request of a kind."""

_OF_MERGES = (MergeOverwritten, MergeTakenOver)


class Clock:
    """The time of runs."""

    now = START


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def _run(
    registry: DockerRegistry, memory: Memory, clock: Clock, chosen: dict[str, Any]
) -> Report:
    more = dict(chosen)
    event: Event | None = more.pop("event")
    how = How(more.pop("grace", timedelta(0)))
    address = registry.address(tags=more.pop("tags", ()))
    waiting, is_leased = [event] if event else [], more.pop("leased", False)
    counts: dict[str, int] = {}

    def before(kind: str) -> None:
        counts[kind] = counts.get(kind, 0) + 1
        if waiting and (kind, counts[kind]) == waiting[0][:2]:
            waiting.pop()[2]()

    async with a_store(address, before, more.pop("packages_url", None)) as store:
        if is_leased:
            return await run_leased(store, memory, clock.now)
        report = await run_on(store, memory, how, clock.now, **more)
    assert report.status == "done", report.problems
    assert not waiting, counts
    return report


def _gc(
    registry: DockerRegistry,
    memory: Memory,
    clock: Clock,
    event: Event | None = None,
    **more: Any,
) -> Report:
    """Do a run without a grace period, an hour after the one before."""
    report = anyio.run(_run, registry, memory, clock, {"event": event, **more})
    clock.now += timedelta(hours=1)
    return report


def _deletions(report: Report, kind: type[Outcome]) -> list[Outcome]:
    """Return the outcomes of deletions that are of a kind."""
    outcomes = [one.outcome for one in report.actions if one.kind == "delete"]
    return [one for one in outcomes if isinstance(one, kind)]


def test_a_run_of_the_command_line_repairs_merges_and_keeps_the_forms(
    registry: DockerRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    registry.build("api", "base", "api", "test", form=INDEX)
    registry.build("web", "base", "web")
    registry.delete_blob(blob_of("test"))
    place = f"registry://{registry.host}/{registry.repository}?insecure=true"

    done = CliRunner().invoke(app, ["gc", "--store", place])

    assert done.exit_code == 0, done.output
    assert registry.blobs_of("api") == {blob_of("base"), blob_of("api")}
    assert json.loads(registry.content(registry.tags()["api"]))["mediaType"] == INDEX
    assert registry.blobs_of("maintained") == {blob_of(step) for step in ("base", "api", "web")}
    assert "manifests that builds replaced between two runs are unknown" in done.output


@pytest.mark.parametrize("is_known", [False, True])
def test_a_layer_that_a_manifest_references_and_the_registry_has_lost_is_not_called_stored(
    registry: DockerRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """The protocol lists no blobs, so the list has those of manifests, stored or not."""
    monkeypatch.chdir(tmp_path)
    registry.build("api", "base", "api", "test")
    place = f"registry://{registry.host}/{registry.repository}?insecure=true"
    gc = ["gc", "--store", place, "--json"]
    if is_known:
        CliRunner().invoke(app, gc)
    registry.delete_blob(blob_of("test"))

    report = json.loads(CliRunner().invoke(app, gc).stdout)
    why = CliRunner().invoke(app, ["why", blob_of("test")]).output

    assert report["changes"]["gone_entries"] == is_known
    assert [one["entries"] for one in report["entries"] if one["state"] == "dangling"] == []
    assert ("something other than a run deleted it" in why) == is_known
    assert "will be deleted" not in why
    assert "1 result of api" in why


def test_what_a_run_writes_has_the_stamp_of_its_tag_in_this_repository(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    registry.build("api", "base", "api")
    _gc(registry, memory, clock)

    stamp = stamp_of(IndexId(NO_REF, Scope("maintained")), registry.address().name)
    assert stamp.encode() in registry.index("maintained")


def test_what_a_run_has_written_is_not_taken_for_what_others_stored(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    reports = []
    for build in ("web", "web again"):
        registry.build("web", "base", build)
        reports.append(_gc(registry, memory, clock))
    assert all(one.indexes_written for one in reports)
    # A build adds its last layer and its manifest; its config belongs to that.
    assert [one.changes.new_entries for one in reports] == [0, 2]

    assert _gc(registry, memory, clock).changes.new_entries == 0


def test_a_repair_that_runs_out_of_requests_fails_and_takes_for_gone_nothing_that_it_did_not_find(
    registry: DockerRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    registry.build("api", "base", "api", "test")
    place = f"registry://{registry.host}/{registry.repository}?insecure=true"

    few = ("--repair", "--max-requests", "4")

    done = CliRunner().invoke(app, ["gc", "--store", place, *few])

    assert done.exit_code == 1, done.output
    assert "most known entries seem to be gone" not in done.output
    assert "nothing was written or deleted." in done.output
    assert re.search(r"deferred to the next run: \d blobs to look for", done.output)
    quiet = CliRunner().invoke(app, ["gc", "--store", place, *few, "--quiet"])
    assert quiet.exit_code == 1
    assert "nothing was written or deleted; the 4 requests of --max-requests are" in quiet.output


def test_a_superseded_manifest_is_deleted_a_grace_period_later_and_no_blob_ever(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    day = timedelta(days=1)
    old = registry.build("api", "base", "api")
    _gc(registry, memory, clock, grace=day)
    new = registry.build("api", "base", "web")
    blobs = registry.blobs()
    _gc(registry, memory, clock, grace=day)
    assert {old, new} <= registry.manifests()
    merged = registry.tags()["api"]
    assert registry.blobs_of("api") == {blob_of(step) for step in ("base", "api", "web")}

    clock.now += timedelta(hours=25)
    _gc(registry, memory, clock, grace=day)

    assert not {old, new} & registry.manifests()
    assert registry.tags()["api"] == merged
    assert blobs <= registry.blobs()


def test_what_a_run_has_written_is_deleted_once_a_build_has_replaced_it(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    day = timedelta(days=1)
    registry.build("api", "base", "api")
    _gc(registry, memory, clock)
    registry.build("api", "base", "web")
    _gc(registry, memory, clock)
    ours = registry.tags()["api"]
    clock.now += 2 * day
    registry.build("api", "base", "docs")

    _gc(registry, memory, clock, grace=day)
    assert ours in registry.manifests()  # A build may have read it until just now.
    clock.now += day
    _gc(registry, memory, clock, grace=day)

    assert ours not in registry.manifests()
    assert registry.manifests() == set(registry.tags().values())


def test_a_manifest_to_which_a_build_lets_a_tag_point_again_stays(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    old = registry.build("api", "base", "api")
    _gc(registry, memory, clock)
    registry.build("api", "base", "web")
    _gc(registry, memory, clock, grace=timedelta(days=1))

    def tag_again() -> None:
        registry.put_manifest(registry.content(old), "web")

    report = _gc(registry, memory, clock, ("list", 2, tag_again))

    assert registry.tags()["web"] == old
    assert old in registry.manifests()
    assert _deletions(report, Skipped)


def _index_of(registry: DockerRegistry, *digests: str) -> bytes:
    listed = [
        {"mediaType": MANIFEST, "digest": one, "size": len(registry.content(one))}
        for one in digests
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()


def test_what_another_manifest_or_a_signature_leads_to_stays(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    listed = registry.build("api", "base", "api")
    signed = registry.build("web", "base", "web")
    free = registry.build("docs", "base", "docs")
    _gc(registry, memory, clock)
    inner = registry.put_manifest(_index_of(registry, listed))
    outer = {"mediaType": INDEX, "digest": inner, "size": 1}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [outer]}
    registry.put_manifest(json.dumps(index).encode(), "release")
    put_image(registry, f"{signed.replace(':', '-')}.sig", "signature")
    for tag in ("api", "web", "docs"):
        registry.build(tag, "base", "test")

    for tags in ((), ("api", "web", "docs"), ()):
        _gc(registry, memory, clock, tags=tags)

    assert {listed, signed} <= registry.manifests()
    assert free not in registry.manifests()


def test_a_registry_that_deletes_nothing_is_reported_with_what_to_do(
    undeletable: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    old = undeletable.build("api", "base", "api")
    for steps in (("base", "web"), ("base", "docs"), ("base", "lib")):
        _gc(undeletable, memory, clock)
        undeletable.build("api", *steps)

    report = _gc(undeletable, memory, clock)

    assert old in undeletable.manifests()
    (note,) = [one for one in report.notes if isinstance(one.reason, DeletionRefused)]
    assert "HTTP 405" in note.sentence
    assert report.verdict
    assert "Allow deletion" in (report.verdict.advice or "")
    assert not _deletions(report, Done)


def test_an_image_is_never_touched_and_inline_caches_are_counted(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    cache = {"moby.buildkit.cache.v0": "W10="}
    one = put_image(registry, None, "amd64", **cache)
    put_image(registry, None, "arm64", **cache)
    registry.put_manifest(_index_of(registry, one), "latest")
    put_image(registry, "plain", "plain")
    put_image(registry, "maintained", "inline", **cache)
    registry.build("api", "base", "api")
    before, manifests = registry.tags(), registry.manifests()

    report = _gc(registry, memory, clock)

    assert registry.tags() == before
    assert manifests <= registry.manifests()
    (note,) = [note for note in report.notes if isinstance(note.reason, InlineCaches)]
    assert "2 tags" in note.sentence


def test_a_manifest_that_claims_too_much_spoils_no_run(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    also_a_blob = registry.build("api", "base", "api")
    registry.put_blob(registry.content(also_a_blob))
    registry.build("web", "base", "web", "test")
    manifest = json.loads(registry.content(registry.tags()["web"]))
    manifest["layers"] += [{**manifest["layers"][0], "digest": also_a_blob}]
    for layer in manifest["layers"]:
        layer["size"] = 2**62
    registry.put_manifest(json.dumps(manifest).encode(), "web")

    _gc(registry, memory, clock)

    # Each entry has a number of its own.
    with memory.database.reading() as connection:
        keys = set(connection.scalars(select(ENTRY.c.key)))
    assert keys >= {f"manifests/{also_a_blob}", f"blobs/{also_a_blob}"}


def test_only_the_tags_that_the_setting_names_are_maintained(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    registry.build("main", "base", "api")
    registry.build("pr-1", "base", "web", "test")
    registry.build("other", "base", "docs", "test")
    registry.delete_blob(blob_of("test"))
    other = registry.tags()["other"]

    _gc(registry, memory, clock, tags=("main", "pr-*"))

    assert registry.tags()["other"] == other
    assert registry.blobs_of("pr-1") == {blob_of("base"), blob_of("web")}
    assert registry.blobs_of("maintained") == {blob_of(step) for step in ("base", "api", "web")}


def test_where_no_tag_is_that_of_a_cache_the_report_says_so(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    put_image(registry, "latest", "image")
    images = _gc(registry, memory, clock)
    registry.build("main", "base", "api")
    _gc(registry, memory, clock)

    mistyped = _gc(registry, memory, clock, tags=("mian", "pr-*"))

    where = f"in {registry.repository}"
    assert images.verdict
    assert images.verdict.message == f"No cache was found {where}."
    assert mistyped.verdict
    assert mistyped.verdict.message == f"No cache {where} has a name such as mian, pr-*."


def test_tags_that_are_mistyped_leave_the_merge_as_it_is_however_old_its_results_are(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    registry.build("main", "base", "api")
    _gc(registry, memory, clock)
    clock.now += timedelta(days=60)

    _gc(registry, memory, clock, tags=("mian", "pr-*"))

    assert registry.blobs_of("maintained") == {blob_of("base"), blob_of("api")}
    registry.untag("main")
    _gc(registry, memory, clock)
    assert registry.blobs_of("maintained") == frozenset()


def test_configurations_that_write_one_merge_hide_nothing_of_each_other(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    registry.build("main", "base", "api")
    registry.build("pr-1", "base", "web")
    of_all = {blob_of(step) for step in ("base", "api", "web")}

    first = _gc(registry, memory, clock, tags=("main",))
    second = _gc(registry, memory, clock, tags=("pr-*",))
    third = _gc(registry, memory, clock, tags=("nothing-*",))
    registry.build("main", "base", "new")
    fourth = _gc(registry, memory, clock, tags=("main",))
    fifth = _gc(registry, memory, clock, tags=("pr-*",))

    assert registry.blobs_of("maintained") == of_all | {blob_of("new")}
    assert [
        [note.reason for note in one.notes if isinstance(note.reason, _OF_MERGES)]
        for one in (first, second, third, fourth, fifth)
    ] == [
        [],
        [MergeTakenOver("maintained", 1)],
        [MergeTakenOver("maintained", 3)],
        [MergeOverwritten("maintained", 1)],
        [MergeOverwritten("maintained", 1)],
    ]


@pytest.mark.parametrize("damage", ["gone", "cut off"])
def test_a_tag_whose_config_is_damaged_is_restored_from_memory(
    registry: DockerRegistry, memory: Memory, clock: Clock, damage: str
) -> None:
    registry.build("api", "base", "api")
    _gc(registry, memory, clock)
    registry.build("web", "base")  # Otherwise the run would be idle.
    config = json.loads(registry.content(registry.tags()["api"]))["config"]["digest"]
    if damage == "gone":
        registry.delete_blob(config)
    else:
        registry.spoil(config)

    _gc(registry, memory, clock)

    assert registry.blobs_of("api") == {blob_of("base"), blob_of("api")}


@pytest.mark.parametrize("tags", [(), ("main",)])
def test_a_cache_of_an_older_builder_stops_nobody_whose_tag_it_is(
    registry: DockerRegistry, memory: Memory, clock: Clock, tags: tuple[str, ...]
) -> None:
    registry.build("main", "base", "api", "test")
    registry.build("pr-1", "base", "web", form=INDEX)
    image = put_image(registry, None, "amd64")
    registry.build("mixed", "base", "docs", form=INDEX)
    _list_too(registry, "mixed", MANIFEST, image)
    registry.delete_blob(blob_of("test"))

    report = _gc(registry, memory, clock, tags=tags)

    assert registry.blobs_of("main") == {blob_of("base"), blob_of("api")}
    assert report.requests.retries == 0


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.oci.artifact.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.oci.image.manifest.v9+json",
    ],
)
def test_a_cache_beside_another_thing_in_one_index_stays_as_it_is(
    registry: DockerRegistry, memory: Memory, clock: Clock, kind: str
) -> None:
    registry.build("api", "base", "api", "test", form=INDEX)
    _list_too(registry, "api", kind, put_image(registry, None, "signature"))
    registry.delete_blob(blob_of("test"))
    before = registry.tags()["api"]

    _gc(registry, memory, clock)

    assert registry.tags()["api"] == before


def test_an_index_that_lists_more_than_a_run_follows_is_not_followed(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    old = registry.build("api", "base", "api")
    _gc(registry, memory, clock)
    registry.build("api", "base", "web")
    listed = [{"mediaType": INDEX, "digest": f"sha256:{n:064x}", "size": 1} for n in range(1_001)]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
    registry.put_manifest(json.dumps(index).encode(), "release")

    report = _gc(registry, memory, clock)

    assert report.requests.counts["download"] < 100
    assert old in registry.manifests()


def _list_too(registry: DockerRegistry, tag: str, kind: str, digest: str) -> None:
    """Let the index of a tag list one thing more."""
    index = json.loads(registry.content(registry.tags()[tag]))
    size = len(registry.content(digest))
    index["manifests"].append({"mediaType": kind, "digest": digest, "size": size})
    registry.put_manifest(json.dumps(index).encode(), tag)


def test_a_clock_that_is_far_ahead_of_the_registrys_ends_the_run(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    registry.build("api", "base", "api")
    _gc(registry, memory, clock)
    registry.build("api", "base", "web")
    manifests = registry.manifests()
    clock.now = datetime.now(UTC) + timedelta(days=2)

    with pytest.raises(AssertionError, match=r"clock is .* ahead of the service's: set it"):
        _gc(registry, memory, clock)

    assert registry.manifests() == manifests


def test_a_list_that_lacks_a_tag_ends_the_run(
    registry: DockerRegistry, memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tag in ("api", "web", "docs"):
        registry.build(tag, "base", tag)
    _gc(registry, memory, clock)
    manifests, everything = registry.manifests(), Client.tags

    async def some(client: Client, *more: Callable[[], None]) -> list[str] | None:
        return [tag for tag in await everything(client, *more) or [] if tag != "web"]

    monkeypatch.setattr(Client, "tags", some)
    with pytest.raises(AssertionError, match="does not show web, which exists"):
        _gc(registry, memory, clock)

    assert registry.manifests() == manifests


def test_a_run_that_lost_its_lease_on_the_way_neither_writes_nor_deletes(
    registry: DockerRegistry, memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maintainer.graph.lease._TRUSTED", 0)
    registry.build("api", "base", "api")

    def lose(kind: str, number: int) -> None:
        with pytest.raises(LeaseLostError):
            _gc(registry, memory, clock, (kind, number, lambda: take_over(memory)), leased=True)

    lose("upload", 1)  # The config, right before the tag.
    assert set(registry.tags()) == {"api"}
    _gc(registry, memory, clock)
    old = registry.tags()["api"]
    registry.build("api", "base", "web")
    lose("list", 2)  # Which tags there are, right before the deletion.
    assert old in registry.manifests()


def test_a_tag_whose_manifest_is_lost_is_reported_and_the_merge_keeps_what_it_held(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    registry.build("api", "base", "api")
    registry.build("web", "base", "web")
    for _ in range(2):
        _gc(registry, memory, clock)
    registry.delete_manifest(registry.tags()["api"])

    report = _gc(registry, memory, clock)

    everything = {blob_of("base"), blob_of("api"), blob_of("web")}
    assert [(one.name, one.problem) for one in report.broken_tags] == [
        ("api", "its manifest is missing, so no manifest is deleted while it is listed")
    ]
    assert report.verdict
    assert "Builds cannot import 1 tag: api" in report.verdict.message
    assert registry.blobs_of("maintained") == everything
    clock.now += timedelta(days=40)
    _gc(registry, memory, clock)
    assert registry.blobs_of("maintained") == everything

    registry.build("api", "base", "api", "test")
    assert not _gc(registry, memory, clock).broken_tags
    registry.untag("api")
    _gc(registry, memory, clock)
    assert registry.blobs_of("maintained") == {blob_of("base"), blob_of("web")}


def test_a_blob_that_is_stored_without_a_byte_counts_as_missing(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    registry.build("main", "base", "api")
    registry.build("web", "base", "web")
    registry.empty_blob(blob_of("api"))

    _gc(registry, memory, clock)

    assert registry.blobs_of("main") == {blob_of("base")}
    assert registry.blobs_of("maintained") == {blob_of("base"), blob_of("web")}


def test_a_config_that_a_run_wrote_and_that_is_damaged_is_written_in_another_way(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    registry.build("api", "base", "api", "test")
    _gc(registry, memory, clock)
    registry.delete_blob(blob_of("test"))
    _gc(registry, memory, clock)

    for tag in ("api", "maintained", "api"):
        registry.spoil(json.loads(registry.content(registry.tags()[tag]))["config"]["digest"])
        report = _gc(registry, memory, clock)
        assert report.status == "done", report.problems
        assert report.indexes_written == 1
        assert registry.blobs_of(tag) == {blob_of("base"), blob_of("api")}

    assert not _gc(registry, memory, clock).indexes_written


@pytest.mark.parametrize("how", [(), ("--repair",)])
def test_a_merge_whose_manifest_is_lost_is_made_again(
    registry: DockerRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    place = f"registry://{registry.host}/{registry.repository}?insecure=true"

    def run(*options: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, ["gc", "--json", "--store", place, *options])
        report: dict[str, Any] = json.loads(done.stdout)
        assert report["status"] == "done", report["problems"]
        return report

    registry.build("api", "base", "api")
    run()
    registry.delete_manifest(registry.tags()["maintained"])

    report = run(*how)

    assert (report["indexes_broken"], report["broken_tags"]) == (1, [])
    assert registry.blobs_of("maintained") == {blob_of("base"), blob_of("api")}
    assert not run("--repair")["indexes_broken"]


def test_a_tag_that_goes_during_the_run_is_no_error(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    registry.build("api", "base", "api")
    registry.build("web", "base", "web")

    _gc(registry, memory, clock, ("download", 1, lambda: registry.untag("web")))

    assert registry.blobs_of("maintained") == {blob_of("base"), blob_of("api")}


def test_what_references_a_layer_that_is_lost_during_the_run_is_left_to_the_next_run(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    registry.build("api", "base", "api")
    registry.build("web", "base", "web")
    lost = blob_of("api")

    report = _gc(registry, memory, clock, ("reserve", 1, lambda: registry.delete_blob(lost)))

    (write,) = [one for one in report.actions if one.kind == "write"]
    assert write.outcome_sentence.endswith(
        f"{lost}, which it would reference, is gone since the run looked"
    )
    _gc(registry, memory, clock)
    assert registry.blobs_of("maintained") == {blob_of("base"), blob_of("web")}


@pytest.mark.parametrize("again", [("base", "web"), ("base", "api", "test")])
def test_a_tag_to_which_a_build_exports_while_it_is_repaired_keeps_the_export(
    registry: DockerRegistry, memory: Memory, clock: Clock, again: tuple[str, ...]
) -> None:
    registry.build("api", "base", "api", "test")
    registry.delete_blob(blob_of("test"))

    _gc(registry, memory, clock, ("reserve", 1, lambda: registry.build("api", *again)))

    assert set(map(blob_of, again)) <= registry.blobs_of("api")


def test_a_larger_export_before_a_tag_is_read_back_is_kept(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    registry.build("api", "base", "api", "test")
    registry.delete_blob(blob_of("test"))
    larger = ("base", "lib", "web", "docs")

    _gc(registry, memory, clock, ("download", 4, lambda: registry.build("api", *larger)))

    assert registry.blobs_of("api") == set(map(blob_of, larger))


def test_a_run_that_has_nothing_to_do_lists_and_ends(
    registry: DockerRegistry, memory: Memory, clock: Clock
) -> None:
    registry.build("api", "base", "api")
    for _ in range(2):
        _gc(registry, memory, clock)

    report = _gc(registry, memory, clock)

    assert report.requests.counts == {"list": 1, "download": 2}


def _act(registry: DockerRegistry, monkeypatch: pytest.MonkeyPatch, grace: str) -> str:
    monkeypatch.setenv("MAINTAINER_GRACE", grace)
    place = f"registry://{registry.host}/{registry.repository}?insecure=true"
    done = CliRunner().invoke(app, ["gc", "--store", place])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_documented_actions_are_enough_and_fewer_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = _PAGE.read_text().partition("## Permissions")[2]
    documented = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    with (
        a_token_service(tmp_path) as service,
        a_registry(tmp_path, more=service.config) as registry,
    ):
        (tmp_path / "config.json").write_text(json.dumps(service.login(registry.host)))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        old = registry.build("api", "base", "api")
        service.granted = documented - {"delete"}
        _act(registry, monkeypatch, "0s")
        registry.build("api", "base", "web")
        output = _act(registry, monkeypatch, "0s")

        assert "superseded manifest cannot be deleted" in output
        assert old in registry.manifests()

        service.granted = documented
        output = _act(registry, monkeypatch, "0s")

        assert old not in registry.manifests()
        assert service.password not in output


def test_a_repository_that_does_not_exist_is_not_remembered(
    registry: DockerRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(
        app, ["gc", "--store", f"registry://{registry.host}/octo/nothing?insecure=true"]
    )

    assert isinstance(done.exception, UnknownCacheError)


def test_on_github_manifests_without_a_tag_are_found_and_deleted_by_its_api(
    undeletable: DockerRegistry, ghcr: Packages, memory: Memory, clock: Clock
) -> None:
    old = [undeletable.build("api", "base", step) for step in ("lib", "docs", "api")][:-1]
    child = put_image(undeletable, None, "amd64")
    undeletable.put_manifest(_index_of(undeletable, child), "latest")
    orphan = put_image(undeletable, None, "nobody's")
    ghcr.kept = {old[0]}
    clock.now += timedelta(days=2)

    report = _gc(undeletable, memory, clock, packages_url=ghcr.url)

    assert undeletable.manifests() == {
        old[0],
        child,
        orphan,
        *undeletable.tags().values(),
    }
    assert not [one for one in report.notes if isinstance(one.reason, UntaggedUnknown)]
    (kept,) = _deletions(report, Skipped)
    assert "more than 5000 downloads" in str(kept)


def test_on_github_what_is_young_stays(
    undeletable: DockerRegistry, ghcr: Packages, memory: Memory, clock: Clock
) -> None:
    old = undeletable.build("api", "base", "lib")
    new = undeletable.build("api", "base", "api")
    clock.now += timedelta(days=2)
    ghcr.changed = {new: clock.now - timedelta(hours=3)}

    _gc(undeletable, memory, clock, packages_url=ghcr.url, grace=timedelta(days=1))
    assert old in undeletable.manifests()
    clock.now += timedelta(days=1)
    _gc(undeletable, memory, clock, packages_url=ghcr.url, grace=timedelta(days=1))

    assert old not in undeletable.manifests()


@pytest.mark.parametrize(
    ("owner", "repository"),
    [("orgs", "octo/app-cache"), ("users", "octo/team/cache"), ("none", "octo/x")],
)
def test_the_package_of_a_user_or_an_organization_is_found(
    undeletable: DockerRegistry,
    memory: Memory,
    clock: Clock,
    owner: str,
    repository: str,
) -> None:
    undeletable.repository = repository
    try:
        undeletable.build("api", "base", "lib")
        with packages_of(undeletable, owner) as packages:
            report = _gc(undeletable, memory, clock, packages_url=packages.url)
    finally:
        undeletable.repository = "octo/app-cache"

    unknown = [note for note in report.notes if isinstance(note.reason, UntaggedUnknown)]
    assert bool(unknown) == (owner == "none")
    assert not unknown or "knows no package octo/x" in unknown[0].sentence
    assert {authorization for *_, authorization in packages.asked} == {f"Bearer {TOKEN}"}
