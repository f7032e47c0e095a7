"""The quota is divided so that the parts add up, and other tools are told apart by their keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintainer.model.marks import State
from maintainer.report import EntryTotal
from maintainer.report.space import count_tool, divide, tool_of
from tests.nasty import NASTY

_COUNT = st.integers(0, 10_000)
_TOTALS = st.dictionaries(st.sampled_from([*State]), st.tuples(_COUNT, _COUNT)).map(
    lambda counts: [EntryTotal(state.value, *numbers) for state, numbers in counts.items()]
)
_FOREIGN = st.lists(st.tuples(st.text(), st.integers(0, 10**6)))


def _ours(totals: list[EntryTotal]) -> list[EntryTotal]:
    return [total for total in totals if total.state != State.FOREIGN]


def _by_tool(foreign: list[tuple[str, int]]) -> list[EntryTotal]:
    tools: dict[str, EntryTotal] = {}
    for key, size in foreign:
        count_tool(tools, key, size)
    return list(tools.values())


@given(st.integers(0, 10**7), _TOTALS, _FOREIGN)
def test_the_parts_add_up_to_what_is_used(
    quota: int, totals: list[EntryTotal], foreign: list[tuple[str, int]]
) -> None:
    space = divide(quota, totals, due=(), foreign=_by_tool(foreign))

    *parts, free = space.parts
    stored = sum(total.size for total in _ours(totals)) + sum(size for _, size in foreign)
    assert space.used == stored
    assert sum(part.size for part in parts) == space.used
    assert free.kind == "free"
    assert free.size == max(0, quota - space.used)


def test_nothing_is_free_of_what_has_no_limit() -> None:
    space = divide(None, [EntryTotal("dangling", 5, 500)], due=(), foreign=())

    assert (space.quota, space.used) == (None, 500)
    assert [part.kind for part in space.parts] == ["reachable", "dangling"]


@given(_TOTALS, _FOREIGN)
def test_no_entry_is_counted_twice_and_none_is_left_out(
    totals: list[EntryTotal], foreign: list[tuple[str, int]]
) -> None:
    space = divide(10, totals, due=(), foreign=_by_tool(foreign))

    counted = {part.kind: part.entries for part in space.parts if part.kind != "foreign"}
    tools = sum(part.entries for part in space.parts if part.kind in ("foreign", "others"))
    assert sum(counted.values()) - counted.get("others", 0) == sum(
        total.entries for total in _ours(totals) if total.entries
    )
    assert tools == len(foreign)


def test_what_is_due_is_told_apart_from_what_has_time_left() -> None:
    totals = [EntryTotal("dangling", 5, 500), EntryTotal("superseded", 3, 30)]

    space = divide(
        1_000,
        totals,
        due=[EntryTotal("dangling", 2, 200), EntryTotal("superseded", 3, 30)],
        foreign=(),
    )

    assert {part.kind: (part.entries, part.size) for part in space.parts} == {
        "reachable": (0, 0),
        "due": (5, 230),
        "dangling": (3, 300),
        "free": (0, 470),
    }


def test_what_is_due_of_other_tools_is_not_theirs_any_more() -> None:
    space = divide(
        1_000,
        [EntryTotal("foreign", 5, 500)],
        due=[EntryTotal("foreign", 2, 200)],
        foreign=_by_tool([("setup-node-1", 100), ("setup-node-2", 200)]),
    )

    parts = {part.kind: (part.entries, part.size) for part in space.parts}
    assert parts["due"] == (2, 200)
    assert parts["foreign"] == (2, 300)
    assert space.used == 500


@pytest.mark.parametrize(
    ("key", "tool"),
    [
        ("setup-node-Linux-x64-npm-0123456789abcdef", "setup-node-"),
        ("v0-rust-build-Linux-x86_64-1f8e2c5a-9d3b7f60", "v0-rust-"),
        ("Linux-pip-0123456789abcdef0123456789abcdef", "Linux-pip-"),
        ("node-modules", "node-modules"),
        ("go-1.22-0123456789", "go-"),
        ("node_modules-abcdef0123", "node_modules-"),
        ("pip|0123456789abcdef", "pip|"),
        ("cache", "cache"),
        ("0123456789abcdef", ""),
        ("-", ""),
        ("", ""),
    ],
)
def test_a_tool_is_known_by_the_first_words_of_its_keys(key: str, tool: str) -> None:
    assert tool_of(key) == tool


@pytest.mark.parametrize("name", NASTY.values(), ids=NASTY.keys())
def test_any_key_has_a_short_beginning(name: str) -> None:
    assert name.startswith(tool_of(name))
    assert len(tool_of(name)) <= 40


def test_only_the_largest_tools_are_told_one_by_one() -> None:
    keys = [(f"tool{'abcdefghijklmnop'[number]}-x", number) for number in range(16)]

    space = divide(1_000, (), due=(), foreign=_by_tool(keys))

    tools = [part for part in space.parts if part.kind == "foreign"]
    [others] = [part for part in space.parts if part.kind == "others"]
    assert [part.size for part in tools] == [15, 14, 13, 12, 11, 10]
    assert (others.entries, others.size) == (10, sum(range(10)))
