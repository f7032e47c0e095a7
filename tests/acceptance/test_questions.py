"""The commands that people ask with, as they type them."""

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import processes
from tests.commands import Outcome, run_here
from tests.integration.world import a_world, blob_of

ESCAPES = "\x1b[31m<script>::error::"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with a_world(tmp_path_factory.mktemp("questions")) as world:
        world.build("base", "api", scope=ESCAPES)
        world.build("base", "web", scope=ESCAPES)
        world.gc()
        world.passes(days=2)
        world.gc()
        return world.database


def _ask(
    database: Path, *arguments: str | Path, as_a_process: bool = False, **more: str
) -> Outcome:
    known = {"MAINTAINER_DATABASE": f"sqlite:///{database}", "PATH": os.environ["PATH"]}
    variables = known | more
    if not as_a_process:
        return run_here(database.parent, variables, *map(str, arguments))
    done = subprocess.run(
        [Path(sys.executable).with_name("maintainer"), *arguments],
        env=variables,
        cwd=database.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_html_is_written_as_a_new_file_would_be(database: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"

    answer = _ask(database, "report", "--html", file)

    assert (answer.status, answer.out, answer.err) == (0, "", "")
    assert file.read_text().startswith("<!doctype html>")
    new = tmp_path / "new"
    new.touch()
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(new.stat().st_mode)
    assert {one.name for one in tmp_path.iterdir()} == {"report.html", "new"}


def test_a_page_that_cannot_be_written_leaves_the_old_one(database: Path, tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()

    answer = _ask(database, "report", "--html", tmp_path / "report.html")

    assert answer.status == 1
    assert len(answer.err.splitlines()) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]


def test_what_is_no_file_is_written_to_and_stays_what_it_is(database: Path, tmp_path: Path) -> None:
    pipe, link, page = (tmp_path / name for name in ("pipe", "link", "page"))
    os.mkfifo(pipe)
    link.symlink_to(page)
    with ThreadPoolExecutor(1) as reader:
        piped = reader.submit(pipe.read_text)
        _ask(database, "report", "--html", pipe)
        assert piped.result(10).startswith("<!doctype html>")
    _ask(database, "report", "--html", link)

    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink()
    assert page.read_text().startswith("<!doctype html>")


def test_all_runs_can_be_asked_for(database: Path) -> None:
    assert len(json.loads(_ask(database, "runs", "--limit", "9" * 20, "--json").out)) == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_knows_few_characters_gets_the_others_escaped(
    database: Path, encoding: str
) -> None:
    answer = _ask(database, "report", as_a_process=True, PYTHONIOENCODING=encoding)

    assert (answer.status, answer.err) == (0, "")
    assert "What takes the space?" in answer.out


def test_output_that_cannot_be_written_is_one_line_and_exit_1(database: Path) -> None:
    done = subprocess.run(
        f"exec '{Path(sys.executable).with_name('maintainer')}' report > /dev/full",
        shell=True,
        env={"MAINTAINER_DATABASE": f"sqlite:///{database}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (
        1,
        "maintainer: the output: No space left on device\n",
    )


def test_markdown_goes_to_stdout_for_a_job_summary(database: Path) -> None:
    answer = _ask(database, "report", "--markdown")

    assert answer.status == 0
    assert answer.out.startswith("## ✅ Healthy\n")
    assert "<script>" not in answer.out


def test_a_stored_report_is_asked_for_by_its_number(database: Path) -> None:
    assert json.loads(_ask(database, "report", "--run", "1", "--json").out)["run"] == 1
    assert json.loads(_ask(database, "report", "--json").out)["run"] == 2


def test_forms_exclude_each_other(database: Path) -> None:
    answer = _ask(database, "report", "--json", "--markdown")

    assert answer.status == 2
    assert answer.err == "maintainer: --json, --markdown and --html exclude each other\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("why", "nothing"),
        ("why", "\udcff"),
        ("tree", "nothing"),
        ("diff", "1", "9"),
        ("report", "--run", "9"),
        ("report", "--run", "9" * 20),
        ("diff", "1", "9" * 20),
    ],
    ids=repr,
)
def test_what_is_not_known_is_one_line_and_exit_1(
    database: Path, arguments: tuple[str, ...]
) -> None:
    answer = _ask(database, *arguments)

    assert answer.status == 1
    assert answer.out == ""
    assert len(answer.err.splitlines()) == 1
    assert answer.err.startswith("maintainer: ")


@pytest.mark.parametrize(
    "arguments",
    [("report",), ("why", blob_of("api")), ("tree",), ("tree", ESCAPES), ("diff", "1", "2")],
    ids=repr,
)
def test_answers_come_as_text_and_as_json(database: Path, arguments: tuple[str, ...]) -> None:
    known = {"MAINTAINER_DATABASE": f"sqlite:///{database}", "PATH": os.environ["PATH"]}
    text = processes.run(database.parent, known, *arguments)
    document = _ask(database, *arguments, "--json")

    assert text.status == document.status == 0, text.err + document.err
    assert text.out.replace("\n", "").isprintable()
    assert "::error" not in text.out
    assert json.loads(document.out)
    assert document.out.isascii()
