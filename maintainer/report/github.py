"""The output for a workflow: the job summary, the outputs of a step, annotations of errors.

The runner obeys commands in what a step prints, on stdout and stderr, and names in a cache are
untrusted. So commands are turned off during a run, and values are written to files, between
delimiters that nobody can guess.
"""

import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from itertools import chain, count
from pathlib import Path

from maintainer.errors import MaintainerError
from maintainer.report.done import format_done
from maintainer.report.files import write_atomically
from maintainer.report.html import render_html
from maintainer.report.markdown import MAX_BYTES, render_markdown
from maintainer.report.model import Report
from maintainer.report.simulation import Simulation
from maintainer.report.verdict import judge
from maintainer.sanitize import loggable
from maintainer.settings import StepSettings

_LONGEST = 1_000


class Workflow:
    """The workflow that a run is a step of."""

    def __init__(self, step: StepSettings) -> None:
        self._step = step
        self._token = ""

    def tell(self, report: Report, simulation: Simulation | None = None) -> None:
        """Write the job summary, the page and the outputs; errors become annotations.

        Raises MaintainerError if one of the runner's files cannot be written.
        """
        self._summarize(render_markdown(report))
        page = self._write_page(render_html(report, simulation))
        self._set(outputs(report) | ({"report-path": str(page)} if page else {}))
        if report.status != "done":
            self._annotate(format_done(report))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Turn the runner's commands off inside; all output goes to stdout.

        An error ends the process, with its status, as an annotation and the output `status`.
        """
        with redirect_stderr(sys.stdout):
            self._stop_commands()
            try:
                yield
            except MaintainerError as error:
                self._set({"status": "failed"})
                self._annotate(str(error))
                raise SystemExit(error.exit_status) from None
            # After any other error, commands stay off: a traceback may contain names.
            self._resume_commands()

    def _summarize(self, text: str) -> None:
        """Append to the summary, unless it would be too long: GitHub would drop all of it."""
        summary = self._step.summary
        if summary and _size(summary) + len(text.encode()) <= MAX_BYTES:
            _append(summary, text)

    def _write_page(self, page: str) -> Path | None:
        if self._step.temporary is None:
            return None
        path = _free(self._step.temporary / "maintainer-report.html")
        write_atomically(path, page)
        return path

    def _set(self, values: Mapping[str, str]) -> None:
        if self._step.output:
            _append(self._step.output, "".join(_assign(*item) for item in values.items()))

    def _annotate(self, message: str) -> None:
        self._resume_commands()
        text = loggable(message, _LONGEST).replace("%", "%25")
        _command(f"::error title=maintainer::{text}")
        self._stop_commands()

    def _stop_commands(self) -> None:
        self._token = secrets.token_hex(16)
        _command(f"::stop-commands::{self._token}")

    def _resume_commands(self) -> None:
        _command(f"::{self._token}::")


@contextmanager
def open_workflow(step: StepSettings | None) -> Iterator[Workflow | None]:
    """Yield the workflow of `step`, with commands turned off inside; None for None."""
    if step is None:
        yield None
    else:
        workflow = Workflow(step)
        with workflow.locked():
            yield workflow


def outputs(report: Report) -> dict[str, str]:
    """Return the outputs of a step: numbers, and constants of ours."""
    verdict = report.verdict or judge(report)
    return {
        "status": report.status,
        "verdict": verdict.level,
        "run": str(report.run),
        "indexes-written": str(report.indexes_written),
        "entries-deleted": str(report.entries_deleted),
        "bytes-freed": str(report.bytes_freed),
        "blobs-missing": str(report.blobs_missing),
    }


def _free(path: Path) -> Path:
    """Return this path, or one like it, at which there is nothing: a job may run us twice."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return next(one for one in chain([path], numbered) if not one.exists())


def _assign(name: str, value: str) -> str:
    delimiter = f"end-{secrets.token_hex(16)}"
    return f"{name}<<{delimiter}\n{value}\n{delimiter}\n"


def _command(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except OSError as error:
        raise MaintainerError(f"{path} cannot be written: {error.strerror or error}") from None
