"""`--repair`: rewrites what is not valid or names missing blobs, and does nothing else."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from maintainer.report import Report
from tests.integration import directories, world
from tests.integration.directories import a_directory, import_tag, layer_of
from tests.integration.watching import Watcher
from tests.integration.world import MAIN, a_world, blob_of, read_newest

NO_GRACE = timedelta(0)
MERGED = "maintained"


@pytest.fixture
def folder(tmp_path: Path) -> directories.World:
    return a_directory(tmp_path)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[world.World]:
    with a_world(tmp_path) as opened:
        yield opened


def _writes(report: Report) -> dict[str, str]:
    assert report.status == "done", report.problems
    return {a.subject: a.outcome_sentence for a in report.actions if a.kind == "write"}


def _level(report: Report) -> tuple[str, str]:
    assert report.verdict
    return report.verdict.level, report.verdict.message


@pytest.mark.parametrize("repair", [True, False])
def test_what_a_run_may_not_repair_leaves_no_cache_that_is_called_healthy(
    service: world.World, repair: bool
) -> None:
    feature = "refs/heads/feature"
    service.build("base", "api")
    service.build("other", ref=feature)
    service.evict("base")

    report = service.gc(ref=feature, readable=[MAIN], repair=repair)
    level, message = _level(report)

    assert (report.indexes_broken, level) == (1, "attention")
    assert message.startswith("1 index is invalid or references blobs that are gone")
    assert f"buildkit in {MAIN}" in message


def test_a_tag_with_missing_blobs_is_repaired_and_nothing_else_is_touched(
    folder: directories.World,
) -> None:
    folder.build("base", "api", "test")
    folder.build("base", "web", tag="web")
    folder.put("orphan")
    folder.evict("test")
    folder.passes(days=9)
    before = folder.files()
    watcher = Watcher(folder)

    with watcher.run(NO_GRACE):
        report = folder.gc(repair=True, merged_tag=MERGED, grace=NO_GRACE)

    assert _writes(report) == {"api": "done"}
    lost = "1 result was lost with blobs that are gone or damaged."
    assert _level(report) == ("good", f"1 index repaired; {lost}")
    assert folder.tags() == ["api", "web"]
    assert import_tag(folder.path, "api").blobs == {layer_of("base"), layer_of("api")}
    gone = before.keys() - folder.files().keys()
    assert not gone
    assert not watcher.problems
    again = folder.gc(repair=True, merged_tag=MERGED)
    assert _writes(again) == {}
    assert "Nothing was broken" in _level(again)[1]
    assert (report.indexes_broken, again.indexes_broken) == (1, 0)


def test_a_tag_that_importers_refuse_is_repaired(folder: directories.World) -> None:
    folder.build("base", "api")
    config = import_config(folder)
    config.unlink()

    assert _writes(folder.gc(repair=True)) == {"api": "done"}

    assert not import_tag(folder.path, "api").results


def import_config(folder: directories.World) -> Path:
    manifest = (folder.blobs / dict(folder.names())["api"][7:]).read_text()
    digest = manifest.split('"config": {')[1].split('"digest": "sha256:')[1][:64]
    return folder.blobs / digest


def test_the_merged_tag_is_repaired_as_any_other_and_stays_ours(
    folder: directories.World,
) -> None:
    folder.build("base", "api")
    folder.build("base", "web", tag="web")
    folder.gc(merged_tag=MERGED)
    folder.build("base", "new", tag="web")
    folder.evict("api")

    assert set(_writes(folder.gc(repair=True, merged_tag=MERGED))) == {"api", MERGED}

    assert import_tag(folder.path, MERGED).blobs == {layer_of("base"), layer_of("web")}
    assert _writes(folder.gc(merged_tag=MERGED)) == {MERGED: "done"}
    assert folder.leads_to(MERGED) == {layer_of("base"), layer_of("new")}


def test_a_dry_run_says_what_would_be_repaired(folder: directories.World) -> None:
    folder.build("base", "api")
    folder.evict("api")
    before = folder.files()

    report = folder.gc(repair=True, dry_run=True)

    assert _writes(report) == {"api": "planned"}
    assert folder.files() == before


def test_of_a_service_only_indexes_are_written_that_name_missing_blobs(
    service: world.World,
) -> None:
    service.build("base", "api", scope="api")
    service.build("base", "api", "more", scope="api")
    service.build("base", "web", scope="web")
    service.build("base", "web", "test", scope="web")
    service.put(f"buildkit-blob-1-{blob_of('orphan')}", size=10)
    service.evict("more")
    service.passes(days=2)
    before = {entry.key for entry in service.entries()}

    report = service.gc(repair=True, grace=NO_GRACE)

    written = {entry.key for entry in service.entries()} - before
    assert before <= {entry.key for entry in service.entries()}
    assert len(written) == 1
    assert set(_writes(report)) == written
    assert read_newest(service.entries(), "api", MAIN).blobs == {blob_of("base"), blob_of("api")}
    assert _writes(service.gc(repair=True)) == {}
