"""The project uses the words of its glossary, and none of the words that the glossary rules out.

Tests are not searched: their names may quote how people talk.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import get_args

import pytest

from maintainer.model.marks import State
from maintainer.model.outcome import Outcome
from maintainer.model.reason import to_code

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "architecture.md"

_PLACES = ("maintainer", "migrations", "config", "docs", "examples", ".github")
_SUFFIXES = {
    ".css",
    ".j2",
    ".js",
    ".json",
    ".md",
    ".py",
    ".service",
    ".sh",
    ".sql",
    ".toml",
    ".yml",
}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \|(?: ([^|]+))? \|$", re.MULTILINE)
_EXCEPTIONS = {
    "maintainer/cacheconfig/normal.py": {"settled"},  # an order that further rounds do not change
    "maintainer/graph/runs.py": {"told"},
}


def _rows() -> list[tuple[str, list[str]]]:
    """Return the words of the glossary, each with the words that it replaces."""
    _, _, text = GLOSSARY.read_text().partition("\n## Glossary\n")
    rows = _ROW.findall(text)
    return [(word, no.split(", ") if no else []) for word, _, no in rows if word != "word"]


def _files() -> Iterator[Path]:
    yield from (path for path in ROOT.iterdir() if path.name == "Makefile")
    yield from (path for path in ROOT.iterdir() if path.suffix in _SUFFIXES)
    for place in _PLACES:
        for path in sorted((ROOT / place).rglob("*")):
            if path.suffix in _SUFFIXES and "vendor" not in path.parts:
                yield path


def _text(path: Path) -> str:
    """Return the text of a file; of the glossary, without the words that it rules out."""
    text = path.read_text()
    if path == GLOSSARY:
        return _ROW.sub(lambda row: f"| {row[1]} | {row[2]} |", text)
    return text


def find(phrase: str, text: str) -> list[int]:
    """Return the lines of a text that contain a word or phrase, also as a part of a name."""
    found = [(word[0].lower(), word.start()) for word in _WORD.finditer(text)]
    joined = f" {' '.join(word for word, _ in found)} "
    starts = list(accumulate((len(word) + 1 for word, _ in found), initial=0))
    return [
        text.count("\n", 0, found[bisect_right(starts, match.start()) - 1][1]) + 1
        for match in re.finditer(rf"(?= {phrase} )", joined)
    ]


@cache
def _joined(path: Path) -> str:
    return f" {' '.join(word.lower() for word in _WORD.findall(_text(path)))} "


@pytest.mark.parametrize(
    ("phrase", "text", "lines"),
    [
        ("hidden by", "a generation that is hidden\n# by another one", [1]),
        ("hidden by", "x = 1\nself.hidden_by = HiddenBy()", [2, 2]),
        ("shield", "class Shield:\n    shields = 1\n    SHIELD_OF = 2", [1, 3]),
        ("told", "retold, toldest", []),
    ],
)
def test_words_are_found_in_text_and_in_names(phrase: str, text: str, lines: list[int]) -> None:
    assert find(phrase, text) == lines


def test_the_glossary_is_a_sorted_table() -> None:
    words = [word for word, _ in _rows()]

    assert words == sorted(words)
    assert len(words) == GLOSSARY.read_text().partition("\n## Glossary\n")[2].count("\n| ") - 1


def test_every_word_for_a_state_or_an_outcome_is_explained() -> None:
    outcomes = {to_code(one.__name__).replace("_", " ") for one in get_args(Outcome)}

    assert {*State, *outcomes, "killed", "interrupted"} <= {word for word, _ in _rows()}


@pytest.mark.parametrize(
    ("word", "other"), [(word, other) for word, others in _rows() for other in others]
)
def test_no_other_word_is_used(word: str, other: str) -> None:
    places = [
        f"{name}:{line}"
        for path in _files()
        if f" {other} " in _joined(path)
        and other not in _EXCEPTIONS.get(name := str(path.relative_to(ROOT)), ())
        for line in find(other, _text(path))
    ]

    assert not places, f"write {word!r} in place of {other!r}: {', '.join(places)}"


def test_no_file_is_named_by_another_word() -> None:
    names = " ".join(str(path.relative_to(ROOT)) for path in _files())

    assert not [other for _, others in _rows() for other in others if find(other, names)]
