"""Shared by the benchmarks; run them with `make bench`, which prints the tables of the README."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import pytest


class Tables:
    """What was measured: rows, by the name of their table."""

    def __init__(self) -> None:
        self._rows: defaultdict[str, list[Mapping[str, str]]] = defaultdict(list)

    def add(self, table: str, row: Mapping[str, str]) -> None:
        """Add a row to a table."""
        self._rows[table].append(row)

    def markdown(self) -> Iterator[str]:
        """Return the lines of all tables."""
        for name, rows in self._rows.items():
            yield f"{name}:"
            yield ""
            yield _line(rows[0])
            yield _line("--:" for _ in rows[0])
            for row in rows:
                yield _line(row.values())
            yield ""


_TABLES = pytest.StashKey[Tables]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin with no rows."""
    config.stash[_TABLES] = Tables()


@pytest.fixture
def tables(request: pytest.FixtureRequest) -> Tables:
    """Return the tables that are printed at the end."""
    return request.config.stash[_TABLES]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the tables."""
    terminalreporter.section("tables")
    for line in config.stash[_TABLES].markdown():
        terminalreporter.write_line(line)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
