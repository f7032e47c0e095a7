"""The HTML report and the pages of a service in a real browser: Chromium, without a network.

`SCREENSHOTS=1 pytest tests/third_party/test_html_in_a_browser.py` takes the pictures in
tests/screenshots anew. Look at them.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from filelock import FileLock
from playwright.sync_api import (
    Browser,
    FloatRect,
    Page,
    ViewportSize,
    sync_playwright,
)

from maintainer.cacheconfig import Digest
from maintainer.graph.database import Database
from maintainer.graph.reports import load_report
from maintainer.model.history import Build, History
from maintainer.report import Report
from maintainer.report.html import render_html
from maintainer.report.model import EvictionDay
from maintainer.report.page import QUESTIONS
from maintainer.report.simulation import Simulation, simulate_cache
from tests.nasty import NASTY
from tests.pages import broken_page, first_page
from tests.reports import a_report
from tests.snapshots import NOW
from tests.weeks import AFTER, BEFORE, LAST, tell_a_week

SCREENSHOTS = Path(__file__).parents[1] / "screenshots"
Scheme = Literal["light", "dark"]

DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
TOP: ViewportSize = {"width": 1120, "height": 640}
"""What the first page of the documentation shows of a report, down to the bar."""
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-device-scale-factor=1",
)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Find the browser, which a newcomer may lack."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    if os.environ.get("CI") == "true":
        pytest.fail("chromium is needed under CI")
    pytest.skip("chromium is not installed")


@pytest.fixture(scope="session")
def week(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Report]:
    """Return the reports of a week, which is told once for all test processes."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "week"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            tell_a_week(folder / "maintainer.db")
    database = Database(f"sqlite:///{folder / 'maintainer.db'}")
    with database.begin() as connection:
        reports = {run: load_report(connection, run) for run in (BEFORE, AFTER, LAST)}
    database.close()
    return reports


@pytest.fixture(scope="module")
def browser(chromium: str, week: dict[int, Report]) -> Iterator[Browser]:
    del week  # It is told by a loop of its own, which cannot run beside the browser's.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page, and what it did besides being there."""

    page: Page
    said: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)


class Tab:
    """A tab of the browser, which shows one page after the other: each new tab takes a second."""

    def __init__(self, browser: Browser, *, javascript: bool) -> None:
        self._page = browser.new_context(java_script_enabled=javascript).new_page()
        self._visit = Visit(self._page)
        self._page.on("console", lambda message: self._visit.said.append(message.text))
        self._page.on("pageerror", lambda error: self._visit.said.append(str(error)))
        self._page.on("dialog", lambda dialog: self._visit.said.append(f"dialog {dialog.message}"))
        self._page.on("request", lambda request: self._visit.requested.append(request.url))

    def visit(self, file: Path, viewport: ViewportSize, scheme: Scheme) -> Visit:
        self._page.goto("about:blank")
        self._page.set_viewport_size(viewport)
        self._page.emulate_media(color_scheme=scheme)
        self._visit = Visit(self._page)
        self._page.goto(file.as_uri())
        return self._visit


Visitor = Callable[..., Visit]


@pytest.fixture(scope="module")
def tabs(browser: Browser) -> dict[bool, Tab]:
    return {javascript: Tab(browser, javascript=javascript) for javascript in (True, False)}


@pytest.fixture
def visit(tabs: dict[bool, Tab], tmp_path: Path) -> Visitor:
    """Open reports and pages as files."""

    def visit(
        report: Report | str,
        viewport: ViewportSize = DESKTOP,
        simulation: Simulation | None = None,
        *,
        scheme: Scheme = "light",
        javascript: bool = True,
    ) -> Visit:
        file = tmp_path / "report.html"
        html = report if isinstance(report, str) else render_html(report, simulation)
        file.write_text(html, encoding="utf-8")
        return tabs[javascript].visit(file, viewport, scheme)

    return visit


def _only_itself(requested: list[str]) -> bool:
    return all(url.startswith(("file:", "data:")) for url in requested) and (
        sum(url.startswith("file:") for url in requested) == 1
    )


@pytest.mark.parametrize("run", [BEFORE, AFTER, LAST])
def test_nothing_is_complained_of_and_nothing_is_asked_of_anybody(
    visit: Visitor, week: dict[int, Report], run: int
) -> None:
    visited = visit(week[run])

    assert visited.said == []
    assert _only_itself(visited.requested)


def test_no_name_does_anything(visit: Visitor) -> None:
    names = list(NASTY.values())

    for name in (
        " ".join(names),
        *(" ".join(names[at : at + 6]) for at in range(0, len(names), 6)),
    ):
        visited = visit(a_report(name))

        assert visited.said == []
        assert _only_itself(visited.requested)
        assert visited.page.locator("h2").all_inner_texts() == list(QUESTIONS[1:])


def test_a_script_that_is_not_ours_would_not_run(visit: Visitor, week: dict[int, Report]) -> None:
    page = visit(week[LAST]).page

    page.evaluate(
        "const one = document.createElement('script');"
        "one.textContent = 'window.owned = true';"
        "document.body.append(one)"
    )

    assert page.evaluate("window.owned") is None


def test_the_answer_to_the_first_question_is_seen_first(
    visit: Visitor, week: dict[int, Report]
) -> None:
    page = visit(week[BEFORE]).page

    assert page.locator("h1").inner_text() == "Needs attention"
    box = page.locator(".verdict .advice").bounding_box()
    assert box
    assert box["y"] + box["height"] < DESKTOP["height"] / 2


def test_tables_sort_by_number_and_by_name_with_mouse_and_keyboard(
    visit: Visitor, week: dict[int, Report]
) -> None:
    page = visit(week[AFTER]).page
    table = page.locator("#scopes table").first
    sizes = [index.bytes_usable for index in week[AFTER].indexes]

    def column(number: int) -> list[str]:
        return table.locator(f"tbody td:nth-child({number})").all_inner_texts()

    def values() -> list[int]:
        cells = table.locator("tbody td:nth-child(7)")
        return [int(cell.get_attribute("data-v") or "") for cell in cells.all()]

    size = table.get_by_role("button", name="size")
    size.click()
    assert values() == sorted(sizes, reverse=True)
    assert table.locator("th[aria-sort=descending]").inner_text().startswith("size")
    size.press("Enter")
    assert values() == sorted(sizes)

    table.get_by_role("button", name="scope").click()
    assert column(1) == sorted(index.scope for index in week[AFTER].indexes)
    assert table.locator("th[aria-sort]").count() == 1


def test_a_table_is_filtered_by_all_words_and_by_whole_digests(
    visit: Visitor, week: dict[int, Report]
) -> None:
    page = visit(week[AFTER]).page
    part = page.locator("#happened details").last
    part.locator("summary").click()
    rows = part.locator("tbody tr:visible")
    deleted = [a for a in week[AFTER].actions if a.kind == "delete" and "#" in a.subject]
    everything = rows.count()

    part.get_by_label("Filter").fill("DELETE index-")
    assert rows.count() == len(deleted)
    assert part.locator("output").inner_text() == f"{len(deleted)} of {everything}"

    blob = next(a.subject for a in week[AFTER].actions if "sha256" in a.subject)
    part.get_by_label("Filter").fill(blob)
    assert rows.count() == 1

    part.get_by_label("Filter").fill("")
    assert rows.count() == everything


def test_charts_are_drawn_and_their_numbers_are_at_hand(
    visit: Visitor, week: dict[int, Report]
) -> None:
    page = visit(week[LAST]).page

    painted = page.locator("figure canvas").evaluate_all(
        "all => all.map(one => one.getContext('2d')"
        ".getImageData(0, 0, one.width, one.height).data.some(value => value))"
    )
    assert painted == [True, True, True]
    assert page.locator("#going details table").count() == 2
    page.locator("#going summary").first.click()
    assert page.locator("table.trend tbody tr").count() == len(week[LAST].trend.points)
    assert page.locator("table.trend").is_visible()


def test_a_day_with_evictions_is_marked_though_its_noon_is_outside_the_chart(
    visit: Visitor, week: dict[int, Report]
) -> None:
    trend = week[LAST].trend
    times = [point.at for point in trend.points]
    days = [min(times).date(), max(times).date(), max(times).date() + timedelta(days=1)]
    evictions = tuple(EvictionDay(day, entries=1, size=10) for day in days)
    trend = msgspec.structs.replace(trend, evictions=evictions)
    page = visit(msgspec.structs.replace(week[LAST], trend=trend)).page

    # The only other line of the first chart is blue.
    marks = page.locator("figure canvas").first.evaluate(
        """canvas => {
            const { width, height } = canvas;
            const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
            const isRed = at => data[at] > 150 && data[at + 1] < 90 && data[at + 3] > 200;
            const rows = Array.from({ length: height }, (_, y) => {
                const row = Array.from({ length: width }, (_, x) => isRed(4 * (y * width + x)));
                return row.filter((red, x) => red && !row[x - 1]).length;
            });
            return Math.max(...rows);
        }"""
    )
    assert marks == 2


def test_what_other_sizes_would_keep_is_drawn(visit: Visitor, week: dict[int, Report]) -> None:
    blobs = [Digest(f"sha256:{number:064x}") for number in range(1, 4)]
    builds = tuple(Build(NOW + timedelta(hours=number), (number % 3,)) for number in range(9))
    stacks = {key: (blob,) for key, blob in enumerate(blobs)}
    history = History(builds, stacks, dict.fromkeys(blobs, 1_000))

    visited = visit(week[LAST], simulation=simulate_cache(week[LAST], history))

    section = visited.page.locator("#simulated")
    assert visited.said == []
    assert section.locator("figure canvas").count() == 2
    assert section.locator("figure h3").all_inner_texts() == [
        "Results found so far, with a daily run",
        "Bytes stored, with a daily run",
    ]
    tables = [table.locator("tbody tr").count() for table in section.locator("table").all()]
    assert tables[:2] == [4, 12], "a row for each quota; and for each policy too"


def test_it_can_be_read_without_javascript(visit: Visitor, week: dict[int, Report]) -> None:
    page = visit(week[AFTER], javascript=False).page

    assert page.locator("h1, h2").all_inner_texts() == ["Healthy", *QUESTIONS[1:]]
    for table in ("table.legend", "#scopes table", "table.trend", "table.evictions"):
        assert page.locator(table).first.is_visible()
    assert page.locator("canvas, input, button").count() == 0


@pytest.mark.parametrize(
    "width", [320, *(pytest.param(width, marks=pytest.mark.soak) for width in (390, 768))]
)
@pytest.mark.parametrize("run", [BEFORE, AFTER])
def test_nothing_is_wider_than_a_phone(
    visit: Visitor, week: dict[int, Report], run: int, width: int
) -> None:
    page = visit(week[run], {"width": width, "height": 800}).page
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")

    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_longest_names_break_rather_than_widen_a_phone(visit: Visitor) -> None:
    page = visit(a_report(NASTY["long"]), PHONE).page

    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(
    visit: Visitor, week: dict[int, Report], scheme: Scheme
) -> None:
    """WCAG 2.2 asks for 4.5 to 1, and for 3 to 1 of parts of pictures."""
    page = visit(week[LAST], scheme=scheme).page

    def luminance(name: str) -> float:
        text = page.evaluate(
            "name => getComputedStyle(document.documentElement).getPropertyValue(name)", f"--{name}"
        )
        parts = [int(text.strip()[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    for paper in ("paper", "panel"):
        for ink in ("ink", "quiet", "good", "attention", "bad"):
            assert contrast(ink, paper) >= 4.5, (ink, paper)
    for mark in ("reachable", "due", "superseded", "unread", "unreadable", "foreign-0"):
        assert contrast(mark, "paper") >= 3, mark


def test_the_colours_follow_the_system(visit: Visitor, week: dict[int, Report]) -> None:
    page = visit(week[LAST]).page
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)

    page.emulate_media(color_scheme="dark")

    assert page.evaluate(background) != light
    assert page.locator("figure canvas").count() == 3


_PAGES: dict[str, Callable[[dict[int, Report]], str]] = {
    "before": lambda week: render_html(week[BEFORE]),
    "after": lambda week: render_html(week[AFTER]),
    "later": lambda week: render_html(week[LAST]),
    "service": lambda _: first_page(),
    "broken": lambda _: broken_page(),
}


@pytest.mark.parametrize(
    ("told", "look"),
    [
        ("before", "desktop-light"),
        ("before", "phone-light"),
        ("before", "top-light"),
        ("after", "top-light"),
        ("after", "desktop-light"),
        ("after", "desktop-dark"),
        ("later", "desktop-light"),
        ("later", "phone-dark"),
        ("service", "desktop-dark"),
        ("service", "phone-light"),
        ("broken", "phone-dark"),
    ],
)
def test_pictures_of_it_are_kept_and_show_what_it_looks_like_now(
    request: pytest.FixtureRequest, week: dict[int, Report], *, told: str, look: str
) -> None:
    kept = SCREENSHOTS / f"{told}-{look}.png"
    of_page = SCREENSHOTS / f"{told}-{look}.sha256"
    html = _PAGES[told](week)
    digest = hashlib.sha256(html.encode()).hexdigest()
    if os.environ.get("SCREENSHOTS"):
        device, scheme = look.split("-")
        visit: Visitor = request.getfixturevalue("visit")
        viewport = {"desktop": DESKTOP, "phone": PHONE, "top": TOP}[device]
        page = visit(html, viewport, scheme=scheme).page
        bar = page.locator(".bar").bounding_box() if device == "top" else None
        clip = bar and FloatRect(x=0, y=0, width=TOP["width"], height=bar["y"] + bar["height"] + 24)
        page.screenshot(full_page=clip is None, clip=clip, path=kept)
        of_page.write_text(f"{digest}  the page in {kept.name}\n")

    assert kept.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert kept.stat().st_size < 700_000
    assert of_page.read_text().split()[0] == digest, "take them anew: see the top of this file"
