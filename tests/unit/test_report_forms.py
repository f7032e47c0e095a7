"""Whatever a stranger calls a scope, a ref or a key: no form of a report obeys it."""

import json
import re
import unicodedata
from functools import cache
from html.parser import HTMLParser
from typing import Any

import jsonschema
import msgspec
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from maintainer.model.reason import SweepUnchecked
from maintainer.report import Report
from maintainer.report.html import render_html
from maintainer.report.json import SCHEMA, make_schema, to_json
from maintainer.report.markdown import MAX_BYTES, render_markdown
from maintainer.report.model import NoteReport
from maintainer.report.terminal import render_report, render_summary
from maintainer.sanitize import printable
from tests.nasty import NASTY
from tests.reports import a_report, an_index

_HIDDEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
_OUR_HTML = {"code", "sub", "details", "summary"}

nasty = pytest.mark.parametrize("name", NASTY.values(), ids=NASTY.keys())


def _hidden(text: str) -> set[str]:
    return {c for c in text if unicodedata.category(c) in _HIDDEN} - {"\n"}


@cache
def _shown(name: str, width: int = 200) -> str:
    return _terminal(a_report(name), width)


@cache
def _page(name: str) -> str:
    return render_html(a_report(name))


@cache
def _summary(name: str) -> str:
    return render_markdown(a_report(name))


def _terminal(report: Report, width: int = 200) -> str:
    console = Console(width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(render_report(report))
        console.print(render_summary(report))
    return capture.get()


class _Parsed(HTMLParser):
    """The tags of a page with their attributes' names, its texts, and its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[object] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, [name for name, _ in attrs]))
        self.texts += [value for name, value in attrs if name == "title" and value]

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.tags.append(f"comment {data}")

    def unknown_decl(self, data: str) -> None:
        self.tags.append(f"declaration {data}")


@cache
def _parsed(name: str) -> _Parsed:
    return _Parsed(_page(name))


@nasty
def test_a_terminal_is_sent_nothing_that_it_obeys(name: str) -> None:
    shown = _shown(name)

    assert not _hidden(shown)
    assert "::" not in shown, "a runner of workflows would obey it"
    assert "##[" not in shown


@nasty
def test_a_name_takes_no_more_lines_of_a_terminal_than_a_harmless_one(name: str) -> None:
    wide = 3_000

    assert _shown(name, wide).count("\n") == _shown("web", wide).count("\n")


@nasty
def test_html_has_the_same_tags_whatever_the_names_are(name: str) -> None:
    assert _parsed(name).tags == _parsed("x" * bool(name)).tags


@nasty
def test_html_shows_a_name_for_what_it_is(name: str) -> None:
    assert not _hidden(_page(name))
    assert f"problem {printable(name, 1_000)}" in "".join(_parsed(name).texts)


@nasty
def test_markdown_makes_no_link_no_picture_and_no_html_of_a_name(name: str) -> None:
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = parser.parse(_summary(name))
    inline = [child for token in tokens for child in token.children or ()]

    html = {
        tag
        for token in (*tokens, *inline)
        if token.type.startswith("html")
        for tag in re.findall(r"</?(\w*)", token.content)
    }
    assert html <= _OUR_HTML
    assert {token.type for token in inline} <= {
        "text",
        "text_special",
        "html_inline",
        "softbreak",
        "strong_open",
        "strong_close",
    }
    assert "fence" not in {token.type for token in tokens}


@nasty
def test_markdown_keeps_its_tables_and_headings_whatever_the_names_are(name: str) -> None:
    assert _shape(name) == _shape("x" * bool(name))


@cache
def _shape(name: str) -> list[str]:
    parser = MarkdownIt("commonmark").enable("table")
    return [token.type for token in parser.parse(_summary(name))]


@nasty
def test_markdown_mentions_nobody_and_no_issue(name: str) -> None:
    """GitHub makes mentions of what it reads once entities are resolved, but never within code."""
    prose = re.sub(r"<code>.*?</code>", "", _summary(name))

    assert not re.search(r"&#(35|64|96);", prose)
    assert not re.search(r"[@`]", prose)
    assert not _hidden(prose)


@nasty
def test_json_is_ascii_and_gives_back_what_was_there(name: str) -> None:
    report = a_report(name)
    text = to_json(report)

    assert text.isascii()
    assert json.loads(text)["target"] == report.target
    _schema().validate(json.loads(text))


@cache
def _schema() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


_LEANS_ON_ANOTHER = re.compile(r"^(The same|Those|Null)\b", re.IGNORECASE)
"""JSON has fields in any order, so none is described by the one before it."""
_UNITS = {"size": "bytes", "bytes": "bytes", "seconds": "seconds", "days": "days"}


def test_the_published_schema_is_current() -> None:
    assert SCHEMA.read_text() == make_schema(), "run `python -m maintainer.report.json`"


def test_the_schema_says_what_every_field_means() -> None:
    models = json.loads(make_schema())["$defs"]
    fields = {
        f"{name}.{field}": described.get("description", "")
        for name, model in models.items()
        for field, described in model.get("properties", {}).items()
    }

    assert not [name for name, text in fields.items() if not text], "these lack a docstring"
    assert not [name for name, model in models.items() if not model.get("description")]
    assert not [name for name, text in fields.items() if _LEANS_ON_ANOTHER.search(text)]
    assert models["EvictionDay"]["properties"]["size"]["description"] == "Bytes."
    of_a_base = models["IndexNotRewritten"]["properties"]["index"]
    assert of_a_base["description"].startswith("The name of an index: ")


def test_the_schema_says_the_unit_of_every_size_and_time() -> None:
    for name, model in json.loads(make_schema())["$defs"].items():
        for field, described in model.get("properties", {}).items():
            unit = _UNITS.get(field.partition("_")[0]) or _UNITS.get(field.rpartition("_")[2])
            text = described["description"].lower()
            if "integer" in _types_of(described) and unit:
                assert unit in text, (name, field)
            if field.endswith(("_at", "since", "until")) or field == "at":
                assert described["format"] == "date-time", (name, field)
                assert "utc" in text, (name, field)


def _types_of(described: dict[str, Any]) -> set[str | None]:
    return {one.get("type") for one in (described, *described.get("anyOf", ()))}


def test_the_schema_is_valid_itself_and_refuses_what_is_no_report() -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)

    with pytest.raises(jsonschema.ValidationError):
        _schema().validate({"run": "three"})


def test_a_summary_is_never_longer_than_github_takes() -> None:
    indexes = tuple(an_index("&" * 250 + str(number)) for number in range(2_000))
    lines = tuple(f"{'<' * 500}{number}" for number in range(500))

    notes = tuple(NoteReport(SweepUnchecked(line), line) for line in lines)

    summary = render_markdown(a_report(indexes=indexes, problems=lines, notes=notes))

    assert MAX_BYTES * 0.9 < len(summary.encode()) <= MAX_BYTES
    assert summary.endswith("see `maintainer report`\n")


def test_tables_in_html_are_bounded() -> None:
    indexes = tuple(an_index(str(number)) for number in range(2_010))

    page = render_html(a_report(indexes=indexes))

    assert "and 10 more rows" in page


def test_a_report_that_an_older_version_stored_can_be_read_and_shown() -> None:
    new = msgspec.to_builtins(a_report())
    for name in ("notes", "verdict", "space", "changes", "trend"):
        del new[name]
    for index in new["indexes"]:
        for name in ("keys", "usable_possible", "results_lost", "lost", "newest_at", "oldest_at"):
            del index[name]
        del index["chains"], index["chains_omitted"]

    old = msgspec.convert(json.loads(json.dumps(new)), Report)

    assert "What takes the space?" in _terminal(old)
    assert "How is it going?" in render_markdown(old)
    assert "<h1>Healthy</h1>" in render_html(old)
