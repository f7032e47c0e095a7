"""The pages of a service with more targets than anybody reads."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from operator import eq, gt
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import event

from maintainer.graph.database import Database
from maintainer.graph.ended import count_ended
from maintainer.serve.web.app import Pages
from maintainer.serve.web.metrics import MAX_TARGETS
from maintainer.webserver import listen, serving, url_of
from tests.alerts import read_rules
from tests.empty_database import change, make_empty
from tests.empty_database import url_of as database_at
from tests.integration.many_targets import fill

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
MANY = 1_200


class Site:
    """The pages, and a count of the statements that they send to the database."""

    def __init__(self, url: str, statements: list[str]) -> None:
        self.url = url
        self.statements = statements

    def get(self, path: str) -> str:
        """Return a page."""
        self.statements.clear()
        answer = httpx2.get(f"{self.url}{path}", timeout=60)
        assert answer.status_code == httpx2.codes.OK
        return answer.text


@contextmanager
def _a_site(folder: Path, number: int) -> Iterator[Site]:
    folder.mkdir(exist_ok=True)
    make_empty(folder / "graph.db")
    database = Database(database_at(folder / "graph.db"))
    with database.begin() as connection:
        fill(connection, number, NOW)
        count_ended(connection, [f"octo.app-{one}" for one in range(1, number + 1)], "done")
    statements: list[str] = []
    event.listen(
        database._backend.readers,
        "before_cursor_execute",
        lambda *given: statements.append(given[2]),
    )
    pages = Pages(database, lambda: True, lambda: NOW, dict, str)
    socket = listen("127.0.0.1", 0)
    with serving(pages.app(), socket):
        yield Site(url_of(socket), statements)
    database.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Return the pages of a service with many targets."""
    with _a_site(tmp_path / "many", MANY) as site:
        yield site


@pytest.mark.each_database
def test_pages_of_many_targets_take_as_few_statements_as_those_of_few(tmp_path: Path) -> None:
    paths = ("/", "/?show=all&page=2", "/fleet", "/metrics", "/metrics?target=octo.app-2")
    counts: dict[int, list[int]] = {}
    for number in (3, 199):
        with _a_site(tmp_path / str(number), number) as site:
            counts[number] = []
            for path in paths:
                site.get(path)
                counts[number].append(len(site.statements))
    assert counts[3] == counts[199]
    assert max(counts[199]) <= 8


@pytest.mark.each_database
def test_a_target_whose_name_no_database_holds_is_not_there(tmp_path: Path) -> None:
    with _a_site(tmp_path, 1) as site:
        answer = httpx2.get(f"{site.url}/targets/%00", timeout=60)

    assert answer.status_code == httpx2.codes.NOT_FOUND
    assert answer.text == "There is no target \\x00.\n"


def test_only_problems_are_shown_first_and_everything_can_be_found(site: Site) -> None:
    first = site.get("/")

    assert "1,200 targets: " in first
    assert first.count('<td data-label="target"') == 50
    assert ">octo.app-1<" not in first
    assert "page 1 of" in first
    assert 'href="/?show=all"' in first

    assert site.get("/?q=APP-119").count('<td data-label="target"') == 11
    last = site.get("/?show=all&page=99999")
    assert "page 24 of 24" in last
    assert "previous" in last
    assert '· <a rel="next"' not in last


@pytest.mark.parametrize("query", ["q=%3Cscript%3Ealert(1)%3C/script%3E", "page=-1", "show=%00"])
def test_a_query_of_somebody_else_is_harmless(site: Site, query: str) -> None:
    page = site.get(f"/?{query}")

    assert "<script>alert" not in page


def test_the_metrics_of_many_targets_are_added_up_and_each_can_be_asked_for(site: Site) -> None:
    together = site.get("/metrics")

    assert 'maintainer_fleet_targets{level="bad"}' in together
    assert 'maintainer_fleet_runs_total{status="done"} 1200.0' in together
    assert "octo.app-" not in together

    one = site.get("/metrics?target=octo.app-7&target=octo.app-8")
    assert 'maintainer_target_up{target="octo.app-7"} 1.0' in one
    assert "octo.app-9" not in one
    assert 'maintainer_last_run_requests{kind="list",target="octo.app-1"} 4.0' in site.get(
        "/metrics?targets=all"
    )


def test_alerts_about_all_targets_are_raised_however_many_targets_fail(tmp_path: Path) -> None:
    """Of more than 200 targets none has metrics of its own, and so no alerts."""
    rules = read_rules()
    with _a_site(tmp_path / "many", MAX_TARGETS + 1) as site:
        for trouble in _TROUBLE:
            change(tmp_path / "many" / "graph.db", trouble)
        metrics = site.get("/metrics")

    assert {one["alert"] for one in rules if _is_raised(one["expr"], metrics)} == {
        "MaintainerFleetFails",
        "MaintainerFleetOverdue",
        "MaintainerSearchFails",
    }


_TROUBLE = (
    "UPDATE scheduled SET status = 'failed', due_at = 0",
    """
    INSERT INTO discovery (name, source, searched_at, problem)
    VALUES ('octo', 'place', 0, 'HTTP 500')
    """,
)
_COMPARISON = re.compile(r"(?P<metric>\w+(\{.*\})?) (?P<operator>==|>) (?P<number>[0-9]+)")


def _is_raised(expression: str, metrics: str) -> bool:
    """Whether a metric is compared, and the comparison is true, whatever other labels it has."""
    found = _COMPARISON.fullmatch(expression)
    if found is None:
        return False
    compare = eq if found["operator"] == "==" else gt
    samples = (line.rpartition(" ") for line in metrics.splitlines() if line[0] != "#")
    return any(
        compare(float(value), float(found["number"]))
        for name, _, value in samples
        if found["metric"] in (name, name.partition("{")[0])
    )


def test_a_program_can_count_what_is_not_ready(site: Site) -> None:
    answer = httpx2.get(f"{site.url}/readyz")

    assert answer.status_code == httpx2.codes.SERVICE_UNAVAILABLE
    assert len(answer.text.splitlines()) <= 101
    asked = httpx2.get(f"{site.url}/readyz", headers={"Accept": "application/json"})
    assert len(asked.json()["reasons"]) > 0


def test_all_caches_are_added_up_on_one_page(site: Site) -> None:
    page = site.get("/fleet").replace("\xa0", " ")

    used = sum(one % 10 for one in range(1, MANY + 1) if one % 60)
    assert f"{used / 1000:.1f} TB of 11.8 TB" in page
    assert page.count('<td data-label="health"') == 20
    assert page.index("entries of other tools: setup-node-…") > 0
    # Of a cache of 10 GB, what exceeds 9 GB; a rule finds what was used longest ago.
    nothing = '<td class="n" data-label="bytes" data-v="0">'
    assert page.count(nothing) == 2
    assert page.count("Failing") == 20
