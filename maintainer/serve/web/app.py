"""The pages for people, probes and Prometheus. They only read the database."""

import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from sqlalchemy import Connection
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
)
from starlette.routing import Route

from maintainer.errors import DatabaseError, NoReportError
from maintainer.graph.database import Database
from maintainer.graph.reports import find_neighbours, list_runs, load_report
from maintainer.graph.schedule import TargetStatus, last_reported_run, load_statuses
from maintainer.graph.summaries import load_overviews, load_spaces, load_trends
from maintainer.report import Report
from maintainer.report.html import render_html
from maintainer.report.json import to_json
from maintainer.report.trouble import format_trouble
from maintainer.report.words import as_sentence
from maintainer.sanitize import is_unicode, printable
from maintainer.serve.web.fleet import measure_fleet
from maintainer.serve.web.guard import policy
from maintainer.serve.web.metrics import CONTENT_TYPE, render_metrics
from maintainer.serve.web.pages import (
    Message,
    page_sources,
    render_fleet,
    render_index,
    render_message,
    render_target,
)
from maintainer.serve.web.selection import choose, read_query
from maintainer.serve.web.simulations import Simulations

_MAX_RUNS = 50
"""How many runs the index page lists."""

_MAX_REASONS = 100
"""How many lines of readiness are shown; JSON has all."""

_MAX_DIGITS = 20
"""The maximum number of digits of a run's number in SQLite."""

log = logging.getLogger(__name__)


class Pages:
    """The handlers; each request for what is in the database runs in a separate thread."""

    def __init__(
        self,
        database: Database,
        is_alive: Callable[[], bool],
        clock: Callable[[], datetime],
        trouble: Callable[[], Mapping[str, str]],
        refused: Callable[[], str],
    ) -> None:
        """Show the database, and what could not be recorded there, by target.

        `refused` returns why the configuration that was read last does not apply, if so.
        """
        self._database = database
        self._is_alive = is_alive
        self._clock = clock
        self._trouble = trouble
        self._refused = refused
        self._simulations = Simulations()

    def app(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Route("/", self._index),
                Route("/fleet", self._fleet),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
                Route("/targets/{name}", self._target),
                Route("/runs/{run}.json", self._run_as_json),
                Route("/runs/{run}", self._run),
            ],
            exception_handlers={
                404: self._not_found,
                NoReportError: self._not_found,
                DatabaseError: self._unavailable,
            },
        )

    def _index(self, request: Request) -> Response:
        now, query = self._clock(), read_query(request.query_params)
        with self._database.reading() as connection:
            selection = choose(load_overviews(connection), query, now)
            caches = [one.status.target for _, one in selection.shown if one.status.target]
            trends = load_trends(connection, caches)
            runs = list_runs(connection, _MAX_RUNS)
        content = render_index(selection, trends, runs, now, refused=self._refused())
        return self._page(content, has_form=True)

    def _fleet(self, _: Request) -> Response:
        now = self._clock()
        with self._database.reading() as connection:
            fleet = measure_fleet(load_overviews(connection), load_spaces(connection), now)
        return self._page(render_fleet(fleet, now))

    async def _healthz(self, _: Request) -> Response:
        # Not in a thread: all may wait for the database, and the service is alive all the same.
        if self._is_alive():
            return PlainTextResponse("ok\n")
        return PlainTextResponse("the clock has stopped: restart the service\n", 503)

    def _readyz(self, request: Request) -> Response:
        now = self._clock()
        troubles = {one.name: format_trouble(one, now) for one in self._statuses()}
        troubles.update(self._trouble())
        reasons = {name: printable(why, limit=1_000) for name, why in troubles.items() if why}
        status = 503 if reasons else 200
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({"ready": not reasons, "reasons": reasons}, status)
        shown = list(reasons.items())[:_MAX_REASONS]
        text = "".join(f"{name}: {why}\n" for name, why in shown)
        if len(reasons) > len(shown):
            text += f"and {len(reasons) - len(shown):,} more\n"
        return PlainTextResponse(text or "ready\n", status)

    def _metrics(self, request: Request) -> Response:
        wanted = frozenset(request.query_params.getlist("target"))
        every = request.query_params.get("targets") == "all"
        with self._database.reading() as connection:
            metrics = render_metrics(
                connection,
                self._clock(),
                wanted=wanted,
                every=every,
                has_read_settings=not self._refused(),
            )
        return Response(metrics, media_type=CONTENT_TYPE)

    def _target(self, request: Request) -> Response:
        name = request.path_params["name"]
        with self._database.reading() as connection:
            statuses = load_statuses(connection, name=name) if is_unicode(name) else []
            status = next(iter(statuses), None)
            if status is None:
                raise NoReportError(f"there is no target {printable(name)}")
            run = last_reported_run(connection, status.target)
            why = format_trouble(status, self._clock())
            if run is not None:
                return self._report(connection, run, f"{name}: {why}" if why else "")
        return self._page(render_target(status, self._clock()))

    def _run(self, request: Request) -> Response:
        with self._database.reading() as connection:
            return self._report(connection, _number(request))

    def _run_as_json(self, request: Request) -> Response:
        with self._database.reading() as connection:
            report = load_report(connection, _number(request))
        return Response(to_json(report), media_type="application/json")

    def _report(self, connection: Connection, run: int, notice: str = "") -> Response:
        report = load_report(connection, run)
        links = list(_links(connection, report))
        simulation = self._simulations.of(connection, report)
        # The page itself allows its own scripts and styles only, by their digests.
        inline = "'unsafe-inline'"
        allowed = policy(style=inline, script=inline, img="data:")
        content = render_html(report, simulation, links=links, notice=notice)
        return HTMLResponse(content, headers=allowed)

    def _page(self, content: str, status: int = 200, *, has_form: bool = False) -> Response:
        return HTMLResponse(content, status, headers=policy(has_form=has_form, **page_sources()))

    def _not_found(self, request: Request, error: Exception) -> Response:
        known = isinstance(error, NoReportError)
        text = as_sentence(str(error)) if known else "There is no page at this address."
        message = Message("Not found", text, "Choose one of the targets, or of the last runs.")
        return self._message(request, message, 404)

    def _unavailable(self, request: Request, error: Exception) -> Response:
        log.warning("%s", error)
        advice = "Try again in a minute. If this stays, read the log of the service."
        return self._message(
            request, Message("Not available", as_sentence(str(error)), advice), 503
        )

    def _message(self, request: Request, message: Message, status: int) -> Response:
        """Answer programs in one line, and browsers by a page."""
        if "text/html" not in request.headers.get("accept", ""):
            return PlainTextResponse(f"{printable(message.text)}\n", status)
        return self._page(render_message(message, self._clock()), status)

    def _statuses(self) -> list[TargetStatus]:
        with self._database.reading() as connection:
            return load_statuses(connection)


def _number(request: Request) -> int:
    text = request.path_params["run"]
    # Python refuses to parse very long numbers.
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise NoReportError("there is no such run")
    return int(text)


def _links(connection: Connection, report: Report) -> Iterator[tuple[str, str]]:
    """Return where a reader of a report may want to go."""
    yield "all targets", "/"
    for status in load_statuses(connection, cache=report.target):
        yield f"last report of {status.name}", f"/targets/{status.name}"
    before, after = find_neighbours(connection, report)
    if before is not None:
        yield f"previous: run {before}", f"/runs/{before}"
    if after is not None:
        yield f"next: run {after}", f"/runs/{after}"
    yield "JSON", f"/runs/{report.run}.json"
