"""The published queries return what their questions ask for."""

import json
import re
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from maintainer.graph.database import Database
from maintainer.graph.tables import METADATA
from tests.documents import (
    DOCS,
    QUERIES,
    QUERIES_ON_POSTGRESQL,
    queries_on_postgresql,
    read_queries,
)
from tests.empty_database import on_postgresql, url_of
from tests.integration.world import MAIN, a_world, blob_of

PULL = "refs/pull/7/merge"

Row = dict[str, object]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Let two scopes share a base, GitHub evict a step, and a layer dangle; then look."""
    with on_postgresql() if request.param == "postgresql" else nullcontext():
        yield _fill(tmp_path_factory)


def _fill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with a_world(tmp_path_factory.mktemp("queries")) as world:
        world.put(f"buildkit-blob-1-{blob_of('deleted')}", size=60_000)
        world.gc()
        world.passes(days=2)
        world.gc()
        world.build("base", "api", "test", scope="api")
        world.build("base", "web", scope="web")
        world.build("pull", ref=PULL)
        world.put("setup-node-Linux", size=900)
        world.put(f"buildkit-blob-1-{blob_of('orphan')}", size=70_000)
        world.gc()
        world.passes(days=3)
        world.evict("test")
        world.evict_entries([e for e in world.entries() if e.key.startswith("setup-node")])
        world.put(f"buildkit-blob-1-{blob_of('young')}", size=50_000)
        world.gc(dry_run=True)
        return world.database


@pytest.fixture(scope="module")
def answers(database: Path) -> dict[str, list[Row]]:
    url = url_of(database)
    file = QUERIES if url.startswith("sqlite") else QUERIES_ON_POSTGRESQL
    with closing(Database(url)) as opened, opened.reading() as connection:
        return {
            f"{question.partition('?')[0]}?": [
                dict(row) for row in connection.exec_driver_sql(query).mappings()
            ]
            for question, query in read_queries(file)
        }


def test_there_are_seven_queries_and_each_is_a_question(answers: dict[str, list[Row]]) -> None:
    assert len(answers) == 7
    page = (DOCS / "database.md").read_text()
    assert "the seven queries below" in page
    assert "contains seven more" in page


def test_the_queries_for_postgresql_are_the_same_but_for_their_functions() -> None:
    assert QUERIES_ON_POSTGRESQL.read_text() == queries_on_postgresql(), "run `make docs`"


def test_only_views_are_queried() -> None:
    names = METADATA.tables.keys()

    used = set(re.findall(r"(?:FROM|JOIN) (\w+)", QUERIES.read_text()))

    assert used
    assert not used & names


def test_the_largest_unreferenced_layers_come_first(answers: dict[str, list[Row]]) -> None:
    rows = answers["Which are the largest unreferenced layers, and why are they still there?"]

    assert [row["digest"] for row in rows] == [blob_of("orphan"), blob_of("young")]
    assert rows[1]["reason"] == "grace"
    assert json.loads(str(rows[1]["facts"]))["state"] == "dangling"


def test_layers_that_scopes_share_are_named_with_them(answers: dict[str, list[Row]]) -> None:
    [row] = answers["Which layers do several scopes share?"]

    assert row["digest"] == blob_of("base")
    assert sorted(str(row["which"]).split(",")) == ["api", "web"]
    assert row["size"] == 1_004


def test_evictions_are_counted_by_day_and_kind(answers: dict[str, list[Row]]) -> None:
    rows = answers["What was evicted in the week before the last run?"]

    assert [(row["day"], row["kind"], row["entries"]) for row in rows] == [
        ("2026-01-06", "blob", 1),
        ("2026-01-06", "foreign", 1),
    ]


def test_refs_are_listed_by_kind_of_entry(answers: dict[str, list[Row]]) -> None:
    rows = answers["Which refs fill the cache, and with what?"]

    assert (rows[0]["ref"], rows[0]["kind"]) == (MAIN, "blob")
    assert {row["ref"] for row in rows} == {MAIN, PULL}


def test_the_next_deletions_are_in_the_order_of_deletion(answers: dict[str, list[Row]]) -> None:
    rows = answers["What will be deleted next, and how much space does that free?"]

    assert [(row["state"], row["since"]) for row in rows] == [
        ("dangling", "2026-01-03 00:00:00"),
        ("dangling", "2026-01-06 00:00:00"),
    ]


def test_what_runs_have_deleted_is_named_with_the_reason(answers: dict[str, list[Row]]) -> None:
    [row] = answers["What did runs delete in the week before the last run, and why?"]

    assert (row["run"], row["size"], row["reason"]) == (2, 60_000, "unreferenced")
    assert blob_of("deleted") in str(row["subject"])


def test_indexes_that_reference_missing_layers_are_found(answers: dict[str, list[Row]]) -> None:
    [row] = answers["Which stored indexes reference layers that are gone?"]

    assert (row["scope"], row["blobs"], row["blobs_missing"]) == ("api", 3, 1)
