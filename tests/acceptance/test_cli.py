"""The command line, as people and workflows run it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer

from maintainer import __version__
from maintainer.cacheconfig import encode
from maintainer.cli.app import app
from maintainer.cli.help import EXAMPLES
from maintainer.demo import load_history, seed
from maintainer.demo.command import _program
from maintainer.emulator.server import Running, serve_in_thread
from maintainer.emulator.state import ActionsCache
from maintainer.stores.kinds import KINDS
from tests import processes
from tests.acceptance.demo import Demo
from tests.commands import Outcome, run_here
from tests.recorded import unpack_directory
from tests.snapshots import MAIN, MERGE, SIGNED_WEB, WEB, Chain, an_index, blob_key

COMMAND = Path(sys.executable).with_name("maintainer")
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (DEBUG|INFO|WARNING|ERROR) +\S.*")


@dataclass(frozen=True)
class Shell:
    """A folder to run commands in, and the variables that are set there."""

    folder: Path
    variables: Mapping[str, str]

    def __call__(self, *arguments: str, **variables: str) -> Outcome:
        """Run `maintainer` with these arguments, in this process."""
        return run_here(self.folder, self._all(variables), *arguments)

    def fork(self, *arguments: str, **variables: str) -> Outcome:
        """Run `maintainer` with these arguments, in a process of its own."""
        outcome = processes.run(self.folder, self._all(variables), *arguments)
        assert "Traceback" not in outcome.err, outcome.err
        return outcome

    def start(self, *arguments: str, **variables: str) -> Outcome:
        """Run `maintainer` with these arguments, as a shell does, which starts Python for it."""
        done = subprocess.run(
            [COMMAND, *arguments],
            cwd=self.folder,
            env=self._all(variables),
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    def _all(self, more: Mapping[str, str]) -> dict[str, str]:
        mine = {"PATH": os.environ["PATH"], "COLUMNS": "200", "LANG": "C.UTF-8"}
        return {**mine, **self.variables, **more}


@pytest.fixture
def bare(tmp_path: Path) -> Shell:
    """Return a shell outside of any workflow."""
    return Shell(tmp_path, {})


@pytest.fixture
def running() -> Iterator[Running]:
    """Serve a small cache: two builds that hide each other, and layers that nothing needs."""
    cache = ActionsCache()
    _put_blobs(cache, "base", "api", "web", "dangling")
    _put_index(cache, str(WEB.key(1)), ("base", "api"), "gone")
    _put_index(cache, str(WEB.key(2)), ("base", "web"), days=2)
    _put_index(cache, str(SIGNED_WEB.key(1)), "base", days=3)
    cache.put("setup-node-0a1b", b"theirs", ref=MAIN, version="0" * 64, created_at=_ago(days=9))
    with serve_in_thread(cache) as running:
        yield running


def _ago(*, days: int) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def _put_blobs(cache: ActionsCache, *names: str) -> None:
    for name in names:
        cache.put(blob_key(name), name.encode(), ref=MAIN, created_at=_ago(days=5))


def _put_index(cache: ActionsCache, key: str, *chains: Chain, days: int = 4) -> None:
    cache.put(key, encode(an_index(*chains)), ref=MAIN, created_at=_ago(days=days))


def _keys(running: Running) -> set[str]:
    return running.call(lambda cache: {entry.key for entry in cache.entries()})


@pytest.fixture
def workflow(running: Running, tmp_path: Path) -> Shell:
    """Return a shell as a workflow on the main branch has it."""
    return Shell(tmp_path, running.environment(MAIN))


# Help and bad usage.


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


COMMANDS = dict(_commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "maintainer")
def test_every_command_explains_itself_and_each_of_its_options(
    bare: Shell, path: tuple[str, ...]
) -> None:
    # One of them as a process: that is how all begin.
    outcome = (bare if path else bare.start)(*path, "--help")

    assert outcome.status == 0
    assert outcome.err == ""
    assert f"Usage: maintainer {' '.join(path)}".rstrip() in outcome.out
    for parameter in COMMANDS[path].params:
        names = [name for name in parameter.opts if name.startswith("--")]
        # Options that Typer adds by itself are explained by Typer.
        help_text = getattr(parameter, "help", None)
        assert help_text, names
        assert all(name in outcome.out for name in names)
    for name in getattr(COMMANDS[path], "commands", {}):
        assert re.search(rf"\b{name}\b", outcome.out)


def test_the_commands_are_those_that_people_know(bare: Shell) -> None:
    names = {" ".join(path) for path in COMMANDS}

    assert names >= {
        *("gc", "report", "runs", "demo", "emulator"),
        *("db upgrade", "db current", "db copy"),
    }


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        pytest.param(["gc", "--nonsense"], "--nonsense", id="unknown option"),
        pytest.param(["db", "nonsense"], "nonsense", id="unknown command"),
        pytest.param(["gc", "nonsense"], "nonsense", id="argument where there is none"),
        pytest.param(["runs", "--limit", "0"], "--limit must be at least 1", id="out of range"),
        pytest.param(["diff", "a", "b"], "RUN is not a whole number", id="not a number"),
        pytest.param(["forget"], "'SCOPE'", id="missing argument"),
        pytest.param(["repot"], "Did you mean 'report'? See `", id="typing error"),
    ],
)
def test_bad_usage_is_told_on_stderr_with_status_2(
    bare: Shell, arguments: list[str], named: str
) -> None:
    outcome = bare(*arguments)

    assert outcome.status == 2
    assert named in outcome.problem
    assert " --help`" in outcome.problem
    assert "Input should" not in outcome.problem
    assert list(bare.folder.iterdir()) == []


@pytest.mark.parametrize("follows", ["--dry-run", "-n", "-x"])
@pytest.mark.parametrize("option", ["--merged-tag", "--database", "--grace"])
def test_no_option_passes_for_the_value_of_another(bare: Shell, option: str, follows: str) -> None:
    (bare.folder / "cache").mkdir()

    outcome = bare("gc", "--store", "local:cache", option, follows)

    assert outcome.status == 2
    assert outcome.problem.startswith(f"{option} has no value: {follows} follows it. ")
    assert outcome.problem.endswith(f" is written {option}={follows}")
    assert [one.name for one in bare.folder.iterdir()] == ["cache"]


def test_after_an_equals_sign_anything_is_a_value(bare: Shell) -> None:
    assert bare("usage", "-R", "-x").problem.endswith(" is written -R-x")
    assert bare("gc", "--database=-n.db", "--store", "x").problem.startswith("--store must be ")
    assert "-n.db" in bare("runs", "--database=-n.db").problem


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_where_nobody_listens_nothing_is_said_and_nothing_fails(bare: Shell, closed: str) -> None:
    command = f"{sys.executable} -m maintainer --version {closed}"
    ran = subprocess.run(["sh", "-c", command], capture_output=True, check=False, text=True)

    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            ["--merged-scope", "x", "--store", "local:."],
            "is for github, and has no effect on local",
        ),
        (["--scope", "x", "--store", "local:."], "is for github, and has no effect on local"),
        (["--verify"], "is for local, and has no effect on github"),
        (
            ["--merged-tag", ""],
            "is for local, s3, azblob, or registry, and has no effect on github",
        ),
    ],
    ids=["merged scope", "scope", "verify", "merged tag"],
)
def test_an_option_without_an_effect_is_refused(
    bare: Shell, arguments: list[str], problem: str
) -> None:
    outcome = bare("gc", *arguments)

    assert outcome.status == 2
    assert outcome.problem == f"{arguments[0]} {problem}: leave it out"
    assert list(bare.folder.iterdir()) == []


def test_help_has_groups_examples_variables_and_statuses(bare: Shell) -> None:
    first = bare("--help").out
    for title in ("Set up:", "Maintain:", "Examples:", "Environment:", "Exit status:"):
        assert f"\n{title}\n" in first
    assert first.index("  init ") < first.index("  gc ") < first.index("  report ")
    for title in ("What to do:", "Which cache:", "Output:", "Examples:", "Exit status:"):
        assert f"\n{title}\n" in bare("gc", "--help").out
    for path in COMMANDS:
        out = bare(*path, "--help").out
        assert not any(f"<{kind}>" in out for kind in ("bool", "str", "int range", "list[str]"))
        assert "x>=" not in out


def test_help_has_the_same_examples_where_python_runs_the_module(bare: Shell) -> None:
    for path in ((), ("gc",), ("config", "show")):
        done = subprocess.run(
            [sys.executable, "-m", "maintainer", *path, "--help"],
            env=dict(bare.variables),
            capture_output=True,
            text=True,
            check=True,
        )
        assert "\nExamples:\n" in done.stdout


@pytest.mark.parametrize("name", EXAMPLES, ids=lambda name: name or "maintainer")
def test_every_example_of_the_help_can_be_parsed(name: str) -> None:
    for line, explanation in EXAMPLES[name]:
        program, *words = shlex.split(line.partition(" > ")[0])
        assert (program, bool(explanation)) == ("maintainer", True)
        depth = max(n for n in range(1, len(words) + 1) if tuple(words[:n]) in COMMANDS)
        assert " ".join(words[:depth]) == name or not name
        COMMANDS[tuple(words[:depth])].make_context(name, words[depth:])


@pytest.mark.parametrize(
    ("store", "hint"),
    [
        ("/var/cache", "did you mean local:/var/cache?"),
        ("here", "did you mean local:here?"),
        ("S3://my-bucket/app", "did you mean s3://my-bucket/app?"),
        ("", "--store is empty"),
        ("nowhere", "registry://HOST/REPOSITORY (a repository of a registry, for type=registry)"),
    ],
)
def test_what_is_nearly_a_store_is_recognized(bare: Shell, store: str, hint: str) -> None:
    (bare.folder / "here").mkdir()

    outcome = bare("gc", "--store", store)

    assert outcome.status == 2
    assert outcome.problem == f"--store: {hint}" or outcome.problem.endswith(hint)


def test_a_dry_run_accepts_no_loss_for_the_run_after_it(bare: Shell) -> None:
    outcome = bare("gc", "--dry-run", "--accept-loss")

    assert outcome.status == 2
    assert outcome.problem.startswith("--dry-run and --accept-loss exclude each other")


def test_help_lists_the_kinds_of_stores_and_is_no_error(bare: Shell) -> None:
    outcome = bare("gc", "--store", "help")

    assert (outcome.status, outcome.err) == (0, "")
    assert [line.split()[0] for line in outcome.out.splitlines()] == [one.form for one in KINDS]


@pytest.mark.parametrize("store", ["local:here", "local:nowhere"])
def test_a_target_that_was_never_one_records_no_run(bare: Shell, store: str) -> None:
    (bare.folder / "here").mkdir()

    outcome = bare("gc", "--store", store, "--quiet")

    assert outcome.status == 1
    assert "here" in outcome.problem
    assert bare("db", "upgrade").status == 0
    assert bare("runs", "--json").json == []


@pytest.mark.parametrize("name", ["nowhere", "new"])
def test_where_no_build_has_exported_yet_one_line_says_what_to_do(bare: Shell, name: str) -> None:
    (bare.folder / "new" / "ingest").mkdir(parents=True)

    outcome = bare("gc", "--store", f"local:{name}", "--quiet")

    assert outcome.status == 1
    advice = "check the path and whether its disk is mounted, or let a build export to it first"
    assert outcome.problem.endswith(f": {advice}")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all names are Unicode")
def test_a_path_that_is_not_unicode_is_refused_in_one_line(bare: Shell) -> None:
    unpack_directory(bare.folder).rename(bare.folder / "\udcffcache")
    (bare.folder / "link").symlink_to("\udcffcache")

    for store in ("local:\udcffcache", "local:link"):
        outcome = bare("gc", "--store", store)
        assert outcome.status == 2
        assert "cache is not a valid directory: its path is not UTF-8" in outcome.problem
    outcome = bare("gc", "--store", "local:nowhere", "--database", "\udcff.db")
    assert outcome.status == 2
    assert "--database is a path that is not UTF-8" in outcome.problem


def test_a_directory_without_an_index_is_told_with_what_to_do(bare: Shell) -> None:
    (unpack_directory(bare.folder) / "index.json").unlink()

    outcome = bare("gc", "--store", "local:localcache")

    assert outcome.status == 1
    advice = "there is no index.json: restore it, or let a build end an export"
    assert advice in outcome.out
    assert advice in bare("doctor", "--store", "local:localcache").out


def test_a_directory_whose_index_is_cut_off_does_not_pass_for_a_good_one(bare: Shell) -> None:
    os.truncate(unpack_directory(bare.folder) / "index.json", 100)

    found = bare("doctor", "--store", "local:localcache")

    assert found.status == 1
    assert "restore it, or delete it" in found.out
    assert "restore it, or delete it" in bare("gc", "--store", "local:localcache").out


def test_an_address_where_no_cache_is_does_not_pass_for_a_good_one(bare: Shell) -> None:
    folder = bare.folder / "mistyped"
    folder.mkdir()
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text('{"schemaVersion": 2, "manifests": []}')

    found = bare("doctor", "--store", "local:mistyped", "--json")

    assert found.status == 0, "no build may have exported yet"
    (note,) = (one for one in found.json["findings"] if one["subject"] == "directory")
    assert (note["level"], note["sentence"]) == ("note", "no cache was found there")
    assert note["advice"].startswith("check the address")


def test_a_target_that_has_gone_records_a_run_that_failed(tmp_path: Path) -> None:
    folder = unpack_directory(tmp_path)
    shell = Shell(tmp_path, {})
    assert shell("gc", "--store", "local:localcache").status == 0
    shutil.rmtree(folder)
    (tmp_path / "localcache").mkdir()

    assert shell("gc", "--store", "local:localcache").status == 1

    assert [run["status"] for run in shell("runs", "--json").json] == ["failed", "done"]


def test_the_version_is_told(bare: Shell) -> None:
    outcome = bare.start("--version")

    assert (outcome.status, outcome.out, outcome.err) == (0, f"{__version__}\n", "")


# Configuration.


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("gc", "--deadline", "9999999w"), "--deadline "),
        (
            ("report", "--database", "sqlite:///m.db?timeout=x"),
            "--database is not a valid SQLite file",
        ),
        (("report", "--database", f"sqlite:///{'m' * 300}.db"), "the database mmm"),
    ],
    ids=repr,
)
def test_what_no_machine_can_do_is_told_in_one_line(
    workflow: Shell, arguments: tuple[str, ...], told: str
) -> None:
    outcome = workflow(*arguments)

    assert outcome.status in (1, 2)
    assert outcome.problem.startswith(told)


def test_the_last_word_is_a_line_of_json_where_the_log_is(bare: Shell) -> None:
    outcome = bare("gc", "--store", "local:nowhere", "--log-format", "json")

    assert outcome.status == 1
    lines = [json.loads(line) for line in outcome.err.splitlines()]
    assert lines[-1]["level"] == "error"
    assert lines[-1]["message"].startswith("there is no ")


def test_without_an_environment_one_line_says_what_to_set(bare: Shell) -> None:
    outcome = bare.fork("gc")

    assert outcome.status == 2
    assert outcome.problem == (
        "no cache to work on: set GITHUB_REPOSITORY and GITHUB_TOKEN (`gh auth token` prints one) "
        "to see what is stored; to maintain it, also ACTIONS_RUNTIME_TOKEN with "
        "ACTIONS_RESULTS_URL or ACTIONS_CACHE_URL, which only workflows have"
    )
    assert list(bare.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "variables", "problem"),
    [
        (["gc", "--grace", "soon"], {}, "--grace: soon is not a valid duration; use 90s, 30m, 24h"),
        (["gc", "--database", "redis://x"], {}, "--database "),
        (
            ["runs"],
            {"MAINTAINER_GRACEE": "1h"},
            "environment: MAINTAINER_GRACEE is not a setting: did you mean MAINTAINER_GRACE?",
        ),
        (["gc"], {"GITHUB_REPOSITORY": "nonsense"}, "setting GITHUB_REPOSITORY "),
        (["gc"], {"MAINTAINER_GRACE": "x"}, "setting grace (from MAINTAINER_GRACE) is not a va"),
        (["gc"], {"MAINTAINER_STORE": "x"}, "setting store (from MAINTAINER_STORE) must be git"),
        (["emulator", "--quota", "much"], {}, "--quota: much is not a valid size; use 10GB or"),
        (["emulator", "--listen", "0.0.0.0:80"], {}, "the emulator only listens on loopback"),
    ],
)
def test_bad_configuration_is_one_line_with_status_2(
    bare: Shell, arguments: list[str], variables: dict[str, str], problem: str
) -> None:
    outcome = bare(*arguments, **variables)

    assert outcome.status == 2
    assert outcome.problem.startswith(problem)


def test_a_database_that_does_not_exist_is_not_made_to_be_read(bare: Shell) -> None:
    outcome = bare("report")

    assert outcome.status == 2
    assert outcome.problem == "there is no database maintainer.db: run `maintainer gc` first"
    assert list(bare.folder.iterdir()) == []


def test_an_unusable_database_is_one_line_with_status_1(workflow: Shell) -> None:
    (workflow.folder / "maintainer.db").write_bytes(b"This is no database." * 100)

    outcome = workflow("gc")

    assert outcome.status == 1
    assert outcome.problem == (
        "the database maintainer.db cannot be used: file is not a database: name another one "
        "(`database`), or move this file away"
    )


# A run.


def test_a_run_puts_the_cache_right_and_a_second_one_finds_nothing_to_do(
    workflow: Shell, running: Running
) -> None:
    first = workflow.start("gc", "--json", "--grace", "0s")

    assert first.status == 0
    assert _keys(running) == {
        *map(blob_key, ("base", "api", "web")),
        *(str(WEB.key(3)), str(MERGE.key(1)), str(SIGNED_WEB.key(1)), "setup-node-0a1b"),
    }
    assert _done(first) == [
        ("write", str(WEB.key(3))),
        ("write", str(MERGE.key(1))),
        ("delete", str(WEB.key(1))),
        ("delete", str(WEB.key(2))),
        ("delete", blob_key("dangling")),
    ]
    second = workflow("gc", "--json", "--grace", "0s")
    assert (second.status, _done(second)) == (0, [])


def _done(outcome: Outcome) -> list[tuple[str, str]]:
    return [
        (a["kind"], a["subject"]) for a in outcome.json["actions"] if a["outcome"]["code"] == "done"
    ]


def test_json_is_one_document_on_stdout_and_everything_else_is_on_stderr(workflow: Shell) -> None:
    outcome = workflow.fork("gc", "--json", "--verbose")

    assert outcome.status == 0
    assert outcome.json["status"] == "done"
    assert ("write", str(WEB.key(3))) in _done(outcome)
    lines = outcome.err.splitlines()
    assert lines
    assert all(LOG_LINE.fullmatch(line) for line in lines), outcome.err


@pytest.mark.parametrize("arguments", [(), ("--max-requests", "30"), ("--verbose",)])
def test_a_run_ends_with_its_verdict_and_few_lines(
    workflow: Shell, arguments: tuple[str, ...]
) -> None:
    lines = workflow("gc", *arguments).out.splitlines()

    assert len(lines) <= 10 or "--verbose" in arguments
    assert lines[-1].startswith(("Healthy: ", "To do: "))
    assert ("More: `maintainer report`, or -v" in lines) == ("--verbose" not in arguments)


def test_a_quiet_run_says_nothing_when_all_is_well(workflow: Shell) -> None:
    outcome = workflow("gc", "--quiet")

    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")


def test_a_run_that_failed_has_status_1_and_a_quiet_one_says_why_in_one_line(
    workflow: Shell,
) -> None:
    quiet = workflow.fork("gc", "--quiet", GITHUB_TOKEN="ghs_wrong")

    assert quiet.status == 1
    assert "the run failed: " in quiet.problem
    loud = workflow("gc", "--json", GITHUB_TOKEN="ghs_wrong")
    assert loud.status == 1
    assert loud.json["status"] == "failed"
    assert loud.json["problems"]


def _actions(outcome: Outcome) -> list[tuple[str, str, str]]:
    return [(a["kind"], a["subject"], a["ref"]) for a in outcome.json["actions"]]


@pytest.mark.parametrize("grace", ["0s", "72h"])
def test_a_dry_run_prints_the_plan_that_the_same_command_without_it_carries_out(
    workflow: Shell, running: Running, grace: str
) -> None:
    before = running.call(lambda cache: cache.entries())

    dry = workflow("gc", "--json", "--grace", grace, "--dry-run")

    assert dry.status == 0
    assert dry.json["dry_run"]
    assert {a["outcome"]["code"] for a in dry.json["actions"]} <= {"planned", "kept"}
    after = running.call(lambda cache: cache.entries())
    assert [(e.id, e.content) for e in after] == [(e.id, e.content) for e in before]
    done = workflow("gc", "--json", "--grace", grace)
    assert _actions(done) == _actions(dry)
    assert {a["outcome"]["code"] for a in done.json["actions"]} <= {"done", "kept"}


@pytest.mark.parametrize("entries", [400, pytest.param(None, marks=pytest.mark.soak)])
def test_a_dry_run_of_a_recorded_history_is_carried_out_to_the_letter(
    tmp_path: Path, entries: int | None
) -> None:
    cache = ActionsCache()
    seed(cache, load_history()[:entries], ends_at=_ago(days=2), lasted=timedelta(days=5))
    with serve_in_thread(cache) as running:
        shell = Shell(tmp_path, running.environment(MAIN))
        dry = shell("gc", "--json", "--dry-run")
        done = shell("gc", "--json")

    assert (dry.status, done.status) == (0, 0)
    assert _actions(done) == _actions(dry)
    assert len([a for a in done.json["actions"] if a["kind"] == "delete"]) > 100


def test_a_run_without_a_sweep_deletes_nothing(workflow: Shell, running: Running) -> None:
    before = _keys(running)

    assert workflow("gc", "--no-sweep", "--grace", "0s").status == 0

    assert _keys(running) == before | {str(WEB.key(3)), str(MERGE.key(1))}


def test_a_cache_without_a_list_is_looked_after_by_look_ups_in_the_named_scopes(
    running: Running, tmp_path: Path
) -> None:
    shell = Shell(tmp_path, running.environment(MAIN, rest=False, service="v1"))

    outcome = shell("gc", "--json", "--scope", "web", MAINTAINER_GENERATION_GAP="2")

    assert outcome.status == 0
    assert ("write", str(WEB.key(3)), MAIN) in _actions(outcome)
    assert outcome.json["requests"]["counts"].get("list", 0) == 0


def test_a_configuration_file_counts_for_less_than_an_option(
    workflow: Shell, running: Running
) -> None:
    (workflow.folder / "settings.toml").write_text('grace = "0s"\ndatabase = "sqlite:///a.db"\n')

    kept = workflow("gc", "--json", "--config", "settings.toml", "--grace", "300d")
    assert kept.json["grace_seconds"] == 300 * 24 * 3600
    assert not [a for a in kept.json["actions"] if a["kind"] == "delete"]

    assert workflow("gc", MAINTAINER_CONFIG="settings.toml").status == 0
    assert blob_key("dangling") not in _keys(running)
    assert (workflow.folder / "a.db").exists()
    assert not (workflow.folder / "maintainer.db").exists()


def test_a_run_by_hand_has_the_settings_of_the_target_that_its_cache_is(bare: Shell) -> None:
    unpack_directory(bare.folder)
    (bare.folder / "settings.toml").write_text(
        'grace = "0s"\n[[targets]]\nname = "builder"\nstore = "local:localcache"\n'
        'grace = "30d"\nmerged_tag = "all"\n'
    )
    run = ("gc", "--json", "--config", "settings.toml", "--store")

    outcome = bare(*run, "local:./localcache/")
    assert outcome.json["grace_seconds"] == 30 * 24 * 3600
    assert not [one for one in outcome.json["actions"] if one["kind"] == "delete"]
    assert "all" in {one["scope"] for one in outcome.json["indexes"]}
    assert "maintained" not in {one["scope"] for one in outcome.json["indexes"]}
    assert "the settings of target builder apply" in outcome.err

    again = bare(*run, "local:localcache", "--grace", "2d", "--dry-run")
    assert again.json["grace_seconds"] == 2 * 24 * 3600
    assert "all" in {one["scope"] for one in again.json["indexes"]}


def test_a_workflow_has_the_settings_of_the_target_that_its_repository_is(
    workflow: Shell, running: Running
) -> None:
    repository = running.environment(MAIN)["GITHUB_REPOSITORY"]
    (workflow.folder / "settings.toml").write_text(
        f'[[targets]]\nname = "other"\nrepository = "octo/other"\ngrace = "1h"\n'
        f'[[targets]]\nname = "own"\nrepository = "{repository}"\ngrace = "9d"\n'
    )

    outcome = workflow("gc", "--json", "--dry-run", "--config", "settings.toml")

    assert outcome.json["grace_seconds"] == 9 * 24 * 3600


# What is remembered.


def test_a_stored_report_is_the_one_that_was_printed(workflow: Shell) -> None:
    printed = workflow("gc", "--json")
    as_text = workflow("gc", "--dry-run")

    assert workflow("report", "--run", "1", "--json").out == printed.out
    whole = workflow.fork("report").out
    assert as_text.out.startswith(whole)
    verdict = as_text.out.removeprefix(whole).strip()
    assert whole.replace("\n", " ").startswith(verdict.replace("\n", " "))
    missing = workflow("report", "--run", "99")
    assert missing.status == 1
    assert missing.problem == "the database has no run 99: see `maintainer runs`"


def test_the_report_of_one_cache_is_shown_by_its_name_and_others_are_named(
    workflow: Shell,
) -> None:
    ran = workflow("gc", "--json").json

    assert workflow("report", "--target", ran["target"], "--json").json["run"] == ran["run"]
    missing = workflow("report", "--target", "octo/\x1b[31m")
    assert missing.problem == (
        f"the database has nothing of octo/\\x1b[31m; it has: {ran['target']}"
    )
    assert workflow("report", "--target", "x", "--run", "1").status == 2


def test_the_last_two_runs_are_compared_without_their_numbers(workflow: Shell) -> None:
    workflow("gc")
    assert workflow("diff", "--last").problem.startswith("there is no run before run 1 on ")
    workflow("gc", "--dry-run")
    workflow("gc", "-n")

    both = workflow("diff", "--last", "--json").json
    assert (both["before"], both["after"]) == (2, 3)
    for arguments in (["diff"], ["diff", "1"], ["diff", "1", "2", "--last"]):
        assert workflow(*arguments).status == 2


def test_a_report_is_shown_in_a_browser_once_it_is_written(workflow: Shell) -> None:
    workflow("gc", "--dry-run")
    opener = workflow.folder / "xdg-open"
    opener.write_text(f'#!/bin/sh\ncp "$1" {workflow.folder}/shown.html\n')
    opener.chmod(0o755)
    path = f"{workflow.folder}:{os.environ['PATH']}"

    opened = workflow.start("report", "--html", "report.html", "--open", PATH=path)
    assert opened.status == 0
    assert "<html" in (workflow.folder / "report.html").read_text()
    assert workflow("report", "--open").problem == "--open needs --html FILE"


def test_no_page_is_written_over_a_database(workflow: Shell) -> None:
    workflow("gc", "--dry-run", "--database", "mine.db")
    before = (workflow.folder / "mine.db").read_bytes()

    outcome = workflow("report", "--database", "mine.db", "--html", "mine.db")

    assert outcome.status == 1
    assert outcome.problem.endswith("mine.db is a database: write to another file")
    assert (workflow.folder / "mine.db").read_bytes() == before


def test_the_database_may_be_named_as_a_file(workflow: Shell) -> None:
    workflow("gc", "--dry-run", "--database", "mine.db")

    assert (workflow.folder / "mine.db").exists()
    assert (
        workflow("runs", "--database", "sqlite:///mine.db").out
        == workflow("runs", "--database", "mine.db").out
    )


def test_runs_are_listed_newest_first(workflow: Shell) -> None:
    workflow("gc", "--dry-run")
    workflow("gc")

    listed = workflow("runs", "--json")

    assert listed.status == 0
    assert [(run["run"], run["dry_run"], run["status"]) for run in listed.json] == [
        (2, False, "done"),
        (1, True, "done"),
    ]
    assert [run["run"] for run in workflow("runs", "--json", "--limit", "1").json] == [2]
    table = workflow.fork("runs")
    assert (table.status, table.err) == (0, "")
    assert "done, dry run" in table.out


def test_the_database_is_upgraded_and_its_revision_told(bare: Shell) -> None:
    before = bare.fork("db", "current")
    assert (before.status, before.err) == (0, "")
    assert "none: there is no database yet" in before.out
    assert list(bare.folder.iterdir()) == []

    upgraded = bare.fork("db", "upgrade")

    assert (upgraded.status, upgraded.err) == (0, "")
    assert re.fullmatch(r"maintainer\.db is at revision \d{4}\n", upgraded.out)
    assert bare("db", "current").out == upgraded.out
    schema = bare("db", "current", "--json").json
    assert f"{schema['database']} is at revision {schema['revision']}\n" == upgraded.out


# Secrets.


def test_no_token_or_signed_url_is_in_any_output_or_file(workflow: Shell, running: Running) -> None:
    outcomes = [
        workflow.fork("gc", "--verbose", "--grace", "0s"),
        workflow("gc", "--verbose", "--json", GITHUB_TOKEN="ghs_wrongSECRET"),
        workflow("gc", "--verbose", ACTIONS_RUNTIME_TOKEN="no.jwtSECRET.x"),
        workflow.fork("gc", "--verbose", ACTIONS_RESULTS_URL="http://user:SECRET@127.0.0.1:1/"),
        workflow("gc", "--verbose", ACTIONS_CACHE_SERVICE_V2="SECRET"),
        workflow("report", "--json"),
    ]

    assert [outcome.status for outcome in outcomes] == [0, 1, 2, 2, 2, 0]
    shown = "".join(outcome.out + outcome.err for outcome in outcomes).encode()
    files = b"".join(path.read_bytes() for path in workflow.folder.iterdir())
    tokens = [workflow.variables[name] for name in ("ACTIONS_RUNTIME_TOKEN", "GITHUB_TOKEN")]
    for secret in (*tokens, tokens[0].split(".")[2], "SECRET", "sig="):
        assert secret.encode() not in shown, secret
        assert secret.encode() not in files, secret


# The demo.


def test_the_demo_tells_before_and_after_and_leaves_a_database_to_look_at(
    bare: Shell, demo: Demo
) -> None:
    shutil.copy(demo.database, bare.folder)

    assert demo.err == ""
    assert "before → after" in demo.out
    rows = re.findall(r"^ *(\w+) +(\d+) → (\d+) ", demo.out, re.MULTILINE)
    assert [scope for scope, _, _ in rows] == [
        *("api", "buildkit", "tools", "web", "worker", "maintained")
    ]
    assert all(int(before) < int(after) for _, before, after in rows)
    assert "12.2 GB" in demo.out
    assert "GitHub has evicted" in demo.out
    # What it says can be typed.
    commands = re.findall(r"^ *\S*maintainer ((?:report|diff) .*)$", demo.out, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert bare(*command.replace(" --open", "").split()).status == 0
    runs = bare("runs", "--json", "--database", "maintainer-demo.db").json
    assert [run["dry_run"] for run in reversed(runs)] == [True, True, False, False, False]
    last = bare("report", "--json", "--database", "maintainer-demo.db").json
    assert len(last["trend"]["points"]) == 5
    assert last["trend"]["evictions"]
    assert {one["reason"]["code"] for one in last["actions"] if one["kind"] == "keep"} >= {"grace"}


def test_the_demo_says_how_to_call_a_module_that_python_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/maintainer/__main__.py", "demo"])

    assert _program() == "python -m maintainer"


@pytest.mark.soak
def test_the_demo_can_be_tried_again_in_the_same_place_and_says_more_if_asked(bare: Shell) -> None:
    assert bare("demo").status == 0
    again = bare("demo", "--verbose")

    assert again.status == 0
    assert all(LOG_LINE.fullmatch(line) for line in again.err.splitlines())
