"""A service in another process, and its log of requests."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

from benchmarks.processes import ROOT, expect, module


@dataclass
class RequestLog:
    """What a service was asked within some time."""

    entries: int
    """When the log was started."""
    requests: dict[str, int] = field(default_factory=dict)
    """By kind."""
    deleted: list[int] = field(default_factory=list)
    """The ids of entries that were deleted."""
    listing_began: float = 0.0
    listing_ended: float = 0.0

    @property
    def listing(self) -> float:
        """Seconds from the start of the first list request to the end of the last."""
        return self.listing_ended - self.listing_began

    def count(self, *kinds: str) -> int:
        """Return the number of requests of some kinds."""
        return sum(self.requests.get(kind, 0) for kind in kinds)


@dataclass(frozen=True)
class Served:
    """A service in another process."""

    variables: Mapping[str, str]
    """Of its clients."""
    _requests: IO[str]
    _answers: IO[str]

    def restart_log(self, delay: float = 0.0) -> RequestLog:
        """Return the log since the last call. From now on, responses are delayed by seconds."""
        self._requests.write(f"{delay}\n")
        self._requests.flush()
        return RequestLog(**json.loads(self._answers.readline()))


@contextmanager
def served(name: str, *arguments: str | int) -> Iterator[Served]:
    """Serve in another process, which runs a module of the benchmarks, within the context."""
    command = module(name, *arguments)
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdin
        assert process.stdout
        variables = process.stdout.readline()
        expect(variables, f"{' '.join(command)} does not serve")
        try:
            yield Served(json.loads(variables), process.stdin, process.stdout)
        finally:
            process.stdin.close()
