"""`why`, `tree` and `diff`: what the database knows, told for people."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from rich.console import Console, RenderableType
from rich.text import Text
from sqlalchemy import Connection

from maintainer.cacheconfig import IndexId, Ref, Scope, content_digest
from maintainer.emulator.requests import Request
from maintainer.errors import MaintainerError
from maintainer.graph.compare import RunDiff, compare
from maintainer.graph.database import Database
from maintainer.graph.explain import Explanation, explain
from maintainer.graph.forest import ScopeTree, TreeLayer, load_forest
from maintainer.report.diff import render_diff
from maintainer.report.tree import render_forest
from maintainer.report.why import render_why
from tests.empty_database import url_of
from tests.integration.world import MAIN, World, a_world, blob_of
from tests.nasty import NASTY

PULL = "refs/pull/7/merge"
T = TypeVar("T")

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Return a world in which every nasty name is a scope and a key, after a run; read-only."""
    with a_world(tmp_path_factory.mktemp("known")) as world:
        for name in NASTY.values():
            world.build("base", "api", scope=_storable(name))
            world.put(f"other {_storable(name)}", size=10)
        world.gc()
        yield world


@pytest.mark.parametrize("dry_run", [False, True])
def test_why_says_of_what_is_planned_that_the_next_run_deletes_it(
    world: World, dry_run: bool
) -> None:
    world.build("base", "api")
    world.put(f"buildkit-blob-1-{blob_of('orphan')}", size=10)
    world.gc()
    world.passes(days=2)
    world.gc(dry_run=dry_run, no_sweep=not dry_run)

    shown = _read(world, lambda database: render_why(explain(database, blob_of("orphan"))).plain)

    assert "once this no longer keeps it" not in shown
    assert "What would free it: the next run that may delete, if it is still unref" in shown


def test_why_reckons_with_the_grace_period_of_runs_that_may_delete(world: World) -> None:
    world.build("base", "api")
    world.put(f"buildkit-blob-1-{blob_of('orphan')}", size=10)
    world.gc(grace=timedelta(days=3))
    world.gc(grace=timedelta(hours=1), dry_run=True)

    (known,) = _read(world, lambda connection: explain(connection, blob_of("orphan")))

    assert known.grace == timedelta(days=3)


def test_why_says_that_it_counts_a_result_in_each_index(world: World) -> None:
    world.build("base", "api")
    world.build("base", scope="docs")
    world.gc()

    shown = str(_why(_ask(world, blob_of("base"))))

    assert "Needed by 3 live results (counted in each of 2 indexes)" in shown


def test_why_says_how_the_newest_generation_is_replaced(world: World) -> None:
    world.build("base", "api")
    world.gc()
    (index,) = (one.key for one in world.entries() if one.key.startswith("index-"))

    shown = _read(world, lambda connection: render_why(explain(connection, index)).plain)

    assert "What would free it: a newer generation: " in shown


def test_why_says_after_a_dry_run_what_is_to_become_of_the_newest_generation(world: World) -> None:
    world.build("base", "api")
    world.build("base", "web")
    world.gc(dry_run=True)
    newest = max(one.key for one in world.entries() if one.key.startswith("index-"))

    shown = _read(world, lambda connection: render_why(explain(connection, newest)).plain)

    assert "newest: a run is to merge it into a newer one (" in shown
    assert ", once a newer generation contains it." in shown


def _storable(name: str) -> str:
    return name.encode("utf-8", "replace").decode()[:400]


def _read(world: World, question: Callable[[Connection], T]) -> T:
    """Ask what the runs so far have left in the database."""
    database = Database(url_of(world.database))
    try:
        with database.begin() as connection:
            return question(connection)
    finally:
        database.close()


def _why(told: Explanation) -> Text:
    return render_why([told])


def _ask(world: World, subject: str) -> Explanation:
    (told,) = _read(world, lambda connection: explain(connection, subject))
    return told


def _forest(world: World, scope: str | None = None) -> list[ScopeTree]:
    return _read(world, lambda connection: load_forest(connection, scope))


def _compare(world: World, one: int, other: int) -> RunDiff:
    return _read(world, lambda connection: compare(connection, one, other))


def _shown(renderable: RenderableType) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(renderable, soft_wrap=True)
    return capture.get()


class TestWhy:
    @pytest.mark.each_database
    def test_a_layer_is_kept_by_the_results_that_stand_on_it(self, world: World) -> None:
        world.build("base", "api", "test")
        world.gc()

        told = _ask(world, blob_of("api"))

        assert [(use.key, use.results) for use in told.uses] == [("index-buildkit-1-f921bd05#1", 2)]
        assert [step.name for step in told.path if step.kind == "layer"] == [
            blob_of("base"),
            blob_of("api"),
        ]
        assert [step.name for step in told.path if step.kind == "record"] == [
            blob_of("key of base"),
            blob_of("key of api"),
        ]

    def test_results_that_lost_a_layer_keep_nothing(self, world: World) -> None:
        world.build("base", "api", "test")
        world.evict("api")
        world.gc()

        assert _ask(world, blob_of("base")).uses[0].results == 1
        assert not _ask(world, blob_of("test")).uses

    def test_what_nothing_needs_is_told_with_its_last_index_and_its_end(self, world: World) -> None:
        world.build("base", "api", "test")
        world.evict("api")
        world.gc()

        told = _ask(world, blob_of("test"))

        assert told.last_referenced
        assert told.last_referenced.key == "index-buildkit-1-f921bd05#1"
        assert "the first run after 2026-01-02 00:00 UTC" in _shown(_why(told))

    @pytest.mark.each_database
    def test_it_tells_what_the_next_run_then_does(self, world: World) -> None:
        world.put(f"buildkit-blob-1-{blob_of('orphan')}", size=10)
        world.gc(grace=timedelta(hours=5))
        assert "after 2026-01-01 05:00 UTC" in _shown(_why(_ask(world, blob_of("orphan"))))
        world.passes(hours=5)

        world.gc(grace=timedelta(hours=5))

        assert blob_of("orphan") not in world.blobs()
        assert "deleted by run 2" in _shown(_why(_ask(world, blob_of("orphan"))))

    def test_an_evicted_layer_is_told_from_a_deleted_one(self, world: World) -> None:
        world.build("base", "api")
        world.gc()
        world.evict("api")
        world.passes(hours=1)
        world.gc()

        assert "evicted, noticed at 2026-01-01 01:00" in _shown(_why(_ask(world, blob_of("api"))))

    def test_a_layer_that_was_never_listed_is_known_from_the_index(self, world: World) -> None:
        world.build("base", "api")
        world.evict("api")
        world.gc()

        shown = _shown(_why(_ask(world, blob_of("api"))))
        assert "an index references it, but it does not exist" in shown

    def test_a_missing_layer_is_not_said_to_be_referenced_after_a_repair(
        self, world: World
    ) -> None:
        world.build("base", "api")
        world.evict("api")
        world.gc()
        world.passes(days=2)
        world.gc()

        shown = _shown(_why(_ask(world, blob_of("api"))))
        assert "an index referenced it, but it did not exist" in shown

    @pytest.mark.parametrize(
        ("key", "said"),
        [
            ("index-buildkit-1-f921bd05#1", "superseded since 2026-01-01 00:00"),
            ("index-buildkit-1-f921bd05#3", "never listed"),
            ("setup-node-Linux", "it belongs to another tool"),
            ("index-buildkit-1-11111111#1", "builds in refs/heads/main do not write such keys"),
        ],
    )
    def test_every_kind_of_key_is_explained(self, world: World, key: str, said: str) -> None:
        world.build("base", "api")
        world.build("base", "web")
        world.put("setup-node-Linux", size=10)
        world.put("index-buildkit-1-11111111#1", b"{}")
        world.gc()

        assert said in _shown(_why(_ask(world, key)))

    def test_what_is_in_an_unreadable_ref_is_not_ours_to_judge(self, world: World) -> None:
        key = world.build("pull", ref=PULL).key
        world.gc()

        assert f"a workflow on {PULL}" in _shown(_why(_ask(world, key)))

    def test_what_is_in_two_refs_is_explained_for_each(self, world: World) -> None:
        world.build("base", "api")
        world.build("base", "api", ref=PULL)
        world.gc()

        shown = _shown(_why(_ask(world, blob_of("api"))))

        assert f"in {MAIN}: no run, as long as results need it." in shown
        assert f"in {PULL}: no run from here: only a run in a workflow on {PULL}" in shown

    def test_what_is_in_two_caches_is_explained_for_each(self, world: World) -> None:
        world.build("base", "api")
        world.gc()
        environment = world.running.environment(MAIN, repository="example/app")
        environment["GITHUB_REPOSITORY"] = "example/other"
        world.gc_in(environment)

        told = _read(world, lambda connection: explain(connection, blob_of("api")))

        assert [one.target for one in told] == ["github:example/app", "github:example/other"]
        assert " on github:example/other\n" in _shown(render_why(told))
        assert " on github:example/app: " in _shown(render_forest(_forest(world)))

    def test_a_signature_is_told_with_what_it_signs(self, world: World) -> None:
        signed = world.build("base", signed=True)
        bundle = f"buildkit-blob-1-{content_digest(signed.content or b'')}-sig"
        world.put(bundle, b"bundle")
        world.gc()

        assert f"it signs {signed.key}" in _shown(_why(_ask(world, bundle)))

    @pytest.mark.each_database
    def test_the_beginning_of_a_digest_is_enough_if_it_begins_only_one(self, world: World) -> None:
        world.build("base", "api")
        world.gc()
        digits = blob_of("api").removeprefix("sha256:")

        for asked in (digits[:12], f"sha256:{digits[:8]}", f"buildkit-blob-1-{blob_of('api')}"):
            assert _ask(world, asked).subject == blob_of("api")

    def test_what_keeps_a_blob_beyond_its_grace_is_told_with_what_would_free_it(
        self, world: World
    ) -> None:
        world.build("base", "api")
        world.put(f"buildkit-blob-1-{blob_of('orphan')}", size=1)
        world.gc()
        world.passes(hours=23)
        world.build("base", "pull", ref="refs/pull/1/merge")
        world.passes(hours=3)
        world.gc()

        shown = _shown(_why(_ask(world, blob_of("orphan"))))

        frees = shown.partition("What would free it:")[2]
        assert "in refs/pull/1/merge is newer, its content is unknown" in frees

    def test_a_beginning_that_is_too_short_is_said_to_be_that(self, world: World) -> None:
        world.build("base", "api")
        world.gc()

        for asked in ("9dbaf", "sha256:9"):
            with pytest.raises(MaintainerError, match="too short to tell digests apart"):
                _ask(world, asked)

    @pytest.mark.each_database
    def test_a_key_without_its_number_is_the_newest_generation(self, world: World) -> None:
        keys = [str(world.build("base", "api").key) for _ in range(11)]
        world.gc()
        world.passes(days=1)
        world.gc(dry_run=True)
        name = keys[0].partition("#")[0]

        assert _ask(world, name).subject == keys[-1]
        with pytest.raises(MaintainerError, match="has no entry or layer"):
            _ask(world, name[:-1])

    def test_a_beginning_of_several_digests_is_refused(self, world: World) -> None:
        for last in "01":
            world.put(f"buildkit-blob-1-sha256:{'a' * 63}{last}", size=1)
        world.gc()

        with pytest.raises(MaintainerError, match="begins 2 digests"):
            _ask(world, "aaaaaaaa")

    @pytest.mark.parametrize("name", [*NASTY.values(), "abcdef0123", "%", "_" * 8])
    def test_what_nobody_knows_is_one_line(self, known: World, name: str) -> None:
        with pytest.raises(
            MaintainerError, match=r"^the database has no entry or layer [^\n\x1b]*$"
        ):
            _ask(known, name)

    @pytest.mark.each_database
    def test_of_a_layer_that_is_gone_it_says_which_results_went_with_it(self, world: World) -> None:
        world.build("base", "api", "test", scope="api")
        world.build("base", "web", scope="web")
        world.gc()
        world.evict("api")
        world.gc()

        told = _ask(world, blob_of("api"))

        assert [(one.results, one.key[:9]) for one in told.lost] == [(2, "index-api")]
        shown = _shown(_why(told))
        assert "Gone with it, until a build makes it again:\n  2 results of index-api" in shown
        assert not _ask(world, blob_of("web")).lost
        world.build("base", "api", scope="api")
        world.gc()
        assert "Needed by 2 live results" in _shown(_why(_ask(world, blob_of("api"))))

    @pytest.mark.parametrize("name", ["", " ", "sha256:"])
    def test_an_empty_name_is_not_looked_for(self, known: World, name: str) -> None:
        with pytest.raises(MaintainerError, match="without a name: use a key or a digest"):
            _ask(known, name)


class TestTree:
    def test_layers_stand_on_each_other_and_are_shown_once(self, world: World) -> None:
        world.build("base", "api")
        world.build("base", "web")
        world.gc()

        shown = _shown(render_forest(_forest(world, "buildkit")))

        base, api, web = (blob_of(step)[:19] for step in ("base", "api", "web"))
        lines = shown.splitlines()
        assert shown.count(base) == shown.count(api) == shown.count(web) == 1
        assert lines[1].startswith(f"└── {base}")
        assert {line.strip(" ├└─").split()[0] for line in lines[2:]} == {api, web}
        assert lines[0].startswith("buildkit in refs/heads/main: 3.0 kB in 3 layers, 3 results")

    @pytest.mark.each_database
    def test_what_another_scope_has_shown_is_not_shown_again(self, world: World) -> None:
        world.build("base", "api", scope="api")
        world.build("base", "web", scope="web")
        world.gc()

        shown = _shown(render_forest(_forest(world)))

        assert f"{blob_of('base')[:19]}    1.0 kB  1 result  shown above, in api" in shown

    @pytest.mark.each_database
    def test_the_merge_comes_last_because_it_has_the_layers_of_all_others(
        self, world: World
    ) -> None:
        world.build("base", "api", scope="api")
        world.build("base", "web", scope="web")
        world.gc(merged_scope="all")

        assert [tree.scope for tree in _forest(world)] == ["api", "web", "all"]

    def test_a_scope_is_told_from_others_and_an_unknown_one_is_an_error(self, world: World) -> None:
        world.build("base", "api", scope="api")
        world.build("base", "web", scope="web")
        world.gc()

        assert [tree.scope for tree in _forest(world, "web")] == ["web"]
        for name in ("none", *NASTY.values()):
            with pytest.raises(MaintainerError, match="no index of the scope"):
                _forest(world, name)

    def test_gone_layers_say_so(self, world: World) -> None:
        world.build("base", "api")
        world.evict("api")
        world.gc(dry_run=True)

        shown = _shown(render_forest(_forest(world)))

        assert "gone" in next(line for line in shown.splitlines() if blob_of("api")[:19] in line)

    @pytest.mark.parametrize("branches", [0, 1])
    def test_every_layer_is_drawn_however_many_it_stands_on(self, branches: int) -> None:
        layers = [
            TreeLayer(
                id=2 * step + branch,
                parent_id=2 * step - 2 if step else None,
                digest=f"sha256:{step:06}{branch}{'0' * 57}",
                size=1,
                is_stored=True,
                results=1,
            )
            for step in range(500)
            for branch in range(1 + branches)
        ]

        shown = _shown(render_forest([ScopeTree("target", "web", "main", "index", tuple(layers))]))

        assert all(shown.count(layer.digest[:19]) == 1 for layer in layers)


class TestDiff:
    @pytest.mark.each_database
    def test_what_runs_did_in_between_is_counted(self, world: World) -> None:
        world.build("base", "api")
        world.build("base", "web")
        world.gc(dry_run=True)
        world.passes(days=2)
        world.gc()
        deleted = world.requests["delete"]
        world.passes(days=2)
        world.evict("web")
        world.put("setup-node", size=100)
        world.gc()
        deleted += world.requests["delete"]

        diff = _compare(world, 3, 1)

        happened = {tally.what: tally.entries for tally in diff.happened}
        assert (diff.before, diff.after) == (1, 3)
        assert (diff.usable_before, diff.usable_after) == (2, 2)
        assert happened["evicted by GitHub"] == 1
        assert happened["indexes written by runs"] == 2
        assert happened["deleted by runs"] == deleted > 0

    def test_what_was_gone_when_a_run_came_to_it_is_not_deleted_by_runs(self, world: World) -> None:
        world.build("base", "api")
        world.put("buildkit-blob-1-" + blob_of("orphan"), size=10)
        world.gc()
        world.passes(days=2)
        orphan = next(one for one in world.entries() if one.key.endswith(blob_of("orphan")))

        def evict(request: Request) -> None:
            if request.kind == "delete":
                world.cache.evict(orphan.id)

        world.running.observe(before=evict)
        world.gc()

        happened = {one.what: (one.entries, one.size) for one in _compare(world, 1, 2).happened}
        assert happened["deleted by runs"] == (0, 0)
        assert happened["already gone when runs came to them"] == (1, 10)
        assert happened["evicted by GitHub"] == (0, 0)

    def test_what_a_run_wrote_itself_is_not_new(self, world: World) -> None:
        world.build("base", "api")
        world.build("base", "web")
        world.gc()
        world.passes(hours=1)
        world.gc()

        diff = _compare(world, 1, 2)

        assert {tally.what: tally.entries for tally in diff.happened}["new"] == 0

    def test_only_indexes_that_changed_are_told(self, world: World) -> None:
        world.build("base", "api", scope="same")
        world.build("base", "api", scope="other")
        world.gc()
        world.build("base", "web", scope="other")
        world.gc()

        diff = _compare(world, 1, 2)

        assert [
            (index.scope, index.usable_before, index.usable_after) for index in diff.indexes
        ] == [("other", 2, 3)]

    def test_what_dry_runs_have_only_planned_is_not_there(self, world: World) -> None:
        for layer in ("api", "web"):
            world.build("base", layer, scope=layer)
            world.gc(dry_run=True, merged_scope="maintained")
        world.gc(merged_scope="maintained")

        planned, written = _compare(world, 1, 2), _compare(world, 2, 3)

        assert [one.scope for one in planned.indexes] == ["web"]
        (merge,) = (one for one in written.indexes if one.scope == "maintained")
        assert (merge.generations_before, merge.generations_after) == (None, 1)
        assert (merge.usable_before, merge.usable_after) == (None, 3)

    def test_a_run_is_no_different_from_itself(self, world: World) -> None:
        world.build("base", "api")
        world.gc()

        diff = _compare(world, 1, 1)

        assert not diff.indexes
        assert not any(tally.entries for tally in diff.happened if tally.what != "new")
        assert "No index has changed." in _shown(render_diff(diff))

    def test_a_run_that_saw_nothing_is_not_compared(self, world: World) -> None:
        world.build("base", "api")
        world.gc()
        environment = world.running.environment(MAIN)
        environment |= dict.fromkeys(("GITHUB_API_URL", "ACTIONS_RESULTS_URL"), NOWHERE)
        world.gc_in(environment)

        with pytest.raises(MaintainerError, match="run 2 failed before it knew what is stored"):
            _compare(world, 1, 2)

    def test_a_run_that_could_read_no_index_says_nothing_of_indexes(self, world: World) -> None:
        world.build("base", "api")
        world.gc()
        environment = world.running.environment(MAIN)
        for name in [name for name in environment if name.startswith("ACTIONS_")]:
            del environment[name]
        world.gc_in(environment)

        diff = _compare(world, 1, 2)

        assert (diff.usable_before, diff.usable_after, diff.indexes) == (2, None, ())
        assert "usable results: unknown" in _shown(render_diff(diff))

    def test_a_run_that_is_not_there_is_an_error(self, world: World) -> None:
        world.gc()

        with pytest.raises(MaintainerError, match="no run 7"):
            _compare(world, 1, 7)


@pytest.mark.parametrize("name", NASTY.values(), ids=NASTY.keys())
def test_no_scope_and_no_key_is_obeyed(known: World, name: str) -> None:
    scope = _storable(name)

    def ask(connection: Connection) -> list[RenderableType]:
        subjects = (str(IndexId(Ref(MAIN), Scope(scope)).key(1)), f"other {scope}", blob_of("api"))
        told = [one for subject in subjects for one in explain(connection, subject)]
        assert len(told) == len(subjects)
        return [
            *map(_why, told),
            render_forest(load_forest(connection, scope)),
            render_diff(compare(connection, 1, 1)),
        ]

    for text in map(_shown, _read(known, ask)):
        assert text.replace("\n", "").isprintable()
        assert "::" not in text
        assert "##[" not in text
