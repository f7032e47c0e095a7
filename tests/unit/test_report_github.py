"""What a workflow is told: summary, outputs, annotations; and the runner obeys nobody else."""

import sys
from pathlib import Path

import pytest

from maintainer.errors import MaintainerError, UsageError
from maintainer.report import Report
from maintainer.report.files import write_atomically
from maintainer.report.github import open_workflow, outputs
from maintainer.report.markdown import MAX_BYTES
from maintainer.settings import StepSettings
from tests.reports import a_report, an_index
from tests.steps import obeyed, read_outputs

HOSTILE = "::set-output name=run::666"
OLD_HOSTILE = "a key ##[set-output name=run]666"


@pytest.fixture
def step(tmp_path: Path) -> StepSettings:
    return StepSettings.read(
        {
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            "RUNNER_TEMP": str(tmp_path),
        }
    )


def _tell(step: StepSettings, report: Report) -> None:
    with open_workflow(step) as workflow:
        assert workflow
        workflow.tell(report)


def test_the_runner_obeys_nothing_that_is_printed_while_a_run_goes_on(
    step: StepSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_workflow(step):
        print(HOSTILE)  # noqa: T201
        print(OLD_HOSTILE)  # noqa: T201
    print("::notice::the rest of the step may speak again")  # noqa: T201
    lines = capsys.readouterr().out.splitlines()
    assert HOSTILE in lines
    assert obeyed(lines) == ["::notice::the rest of the step may speak again"]


def test_what_goes_to_stderr_keeps_its_place_among_the_lines(
    step: StepSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_workflow(step):
        print(HOSTILE, file=sys.stderr)  # noqa: T201
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.splitlines()[1] == HOSTILE


def test_nobody_can_guess_how_to_make_the_runner_listen_again(
    step: StepSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        with open_workflow(step):
            pass
    stops = [line for line in capsys.readouterr().out.splitlines() if "stop-commands" in line]
    assert len(set(stops)) == 2
    assert all(len(line.rpartition("::")[2]) == 32 for line in stops)


def test_an_error_is_one_annotation_with_its_exit_status_and_the_output_failed(
    step: StepSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, open_workflow(step):
        raise UsageError("50 % of\n::warning::this")
    assert ended.value.code == 2
    assert obeyed(capsys.readouterr().out.splitlines()) == [
        r"::error title=maintainer::50 %25 of\n\x3a:warning\x3a:this"
    ]
    assert step.output
    assert read_outputs(step.output) == {"status": "failed"}


def test_after_any_other_error_the_runner_stays_deaf(
    step: StepSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ZeroDivisionError), open_workflow(step):
        raise ZeroDivisionError(HOSTILE)
    lines = [*capsys.readouterr().out.splitlines(), HOSTILE]
    assert obeyed(lines) == []


def test_a_run_that_is_done_is_a_summary_outputs_and_a_page_without_an_annotation(
    step: StepSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _tell(step, a_report())
    assert obeyed(capsys.readouterr().out.splitlines()) == []
    assert step.summary
    assert step.summary.read_text().startswith("## ")
    assert step.output
    page = tmp_path / "maintainer-report.html"
    assert page.read_text().startswith("<!doctype html>")
    assert read_outputs(step.output) == outputs(a_report()) | {"report-path": str(page)}


def test_each_step_of_a_job_has_a_page_of_its_own(step: StepSettings, tmp_path: Path) -> None:
    _tell(step, a_report())
    first = (tmp_path / "maintainer-report.html").read_bytes()
    _tell(step, a_report("another"))
    assert (tmp_path / "maintainer-report.html").read_bytes() == first
    assert step.output
    assert read_outputs(step.output)["report-path"] == str(tmp_path / "maintainer-report-2.html")


def test_a_run_that_failed_is_annotated_in_one_line(
    step: StepSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    _tell(step, a_report(status="failed", problems=(f"no answer\n{HOSTILE}",)))
    (line,) = obeyed(capsys.readouterr().out.splitlines())
    assert line.startswith("::error title=maintainer::the run failed: no answer")
    assert step.output
    assert read_outputs(step.output)["status"] == "failed"


def test_outputs_are_numbers_and_our_own_words_whatever_names_a_report_holds() -> None:
    told = outputs(a_report(HOSTILE))
    words = {"status": "done", "verdict": told["verdict"]}
    assert told["verdict"] in ("good", "attention", "bad")
    assert all(told[name] == word for name, word in words.items())
    assert all(told[name].isdigit() for name in told.keys() - words)


def test_outputs_say_what_the_report_counts() -> None:
    told = outputs(a_report())
    assert told["indexes-written"] == "1"
    assert told["entries-deleted"] == "1"
    assert told["bytes-freed"] == "90"
    assert told["blobs-missing"] == str(a_report().blobs_missing)
    assert told["run"] == str(a_report().run)


def test_what_the_step_has_written_before_stays_in_front(step: StepSettings) -> None:
    assert step.summary
    assert step.output
    step.summary.write_text("before\n")
    step.output.write_text("mine<<end\nvalue\nend\n")
    _tell(step, a_report())
    assert step.summary.read_text().startswith("before\n## ")
    assert read_outputs(step.output)["mine"] == "value"


def test_a_summary_that_would_be_too_long_with_what_is_there_is_left_out(
    step: StepSettings,
) -> None:
    assert step.summary
    step.summary.write_text("x" * (MAX_BYTES - 5))
    _tell(step, a_report())
    assert step.summary.stat().st_size == MAX_BYTES - 5


def test_a_file_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = StepSettings.read({"GITHUB_STEP_SUMMARY": str(tmp_path / "missing" / "summary")})
    with pytest.raises(SystemExit) as ended:
        _tell(step, a_report())
    assert ended.value.code == 1
    (line,) = obeyed(capsys.readouterr().out.splitlines())
    assert line.endswith("cannot be written: No such file or directory")


def test_a_link_to_itself_is_no_place_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name in ("loop", "loop/page"):
        with pytest.raises(MaintainerError, match="cannot be written: Too many levels"):
            write_atomically(tmp_path / name, "text")
    assert (tmp_path / "loop").is_symlink()
    assert len(list(tmp_path.iterdir())) == 1


def test_where_the_runner_names_no_files_nothing_is_written(tmp_path: Path) -> None:
    _tell(StepSettings.read({"GITHUB_OUTPUT": ""}), a_report())
    assert not list(tmp_path.iterdir())


def test_outside_of_a_workflow_nothing_is_held_back(capsys: pytest.CaptureFixture[str]) -> None:
    with open_workflow(None) as workflow:
        assert workflow is None
    assert capsys.readouterr().out == ""


def test_a_layer_that_is_gone_counts_in_each_index_that_referenced_it() -> None:
    """As the Action says; the report knows how many each index misses, not which."""
    indexes = tuple(an_index(scope=scope, blobs_missing=1) for scope in ("api", "web"))

    assert outputs(a_report(indexes=indexes))["blobs-missing"] == "2"
