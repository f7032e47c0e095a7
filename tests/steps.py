"""What the runner of a workflow makes of what a step prints and writes."""

import re
from collections.abc import Iterable
from pathlib import Path

_COMMAND = re.compile(r"\s*::([^\s:]+)(?: [^:]*)?::(.*)|.*##\[([^\]]+)\](.*)")
"""A command in either form: at the start of a line, or, the old one, anywhere in it."""


def obeyed(lines: Iterable[str]) -> list[str]:
    """Return the lines that the runner takes for commands, but for those that switch them off."""
    told: list[str] = []
    resume: str | None = None
    for line in lines:
        match = _COMMAND.fullmatch(line)
        if match is None:
            continue
        name, value = match[1] or match[3], match[2] or match[4]
        if resume is not None:
            resume = None if name == resume else resume
        elif name == "stop-commands":
            resume = value
        else:
            told.append(line)
    return told


def read_outputs(path: Path) -> dict[str, str]:
    """Read a file of outputs, in which each value stands between lines of its own choice."""
    told: dict[str, str] = {}
    lines = iter(path.read_text().splitlines())
    for line in lines:
        name, found, end = line.partition("<<")
        assert found, line
        value: list[str] = []
        for inner in lines:
            if inner == end:
                break
            value.append(inner)
        told[name] = "\n".join(value)
    return told
