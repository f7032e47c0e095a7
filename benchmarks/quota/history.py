"""What builds needed, one after the other: recorded, or generated with large and rare layers."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import msgspec

from maintainer.cacheconfig import CacheConfig, Digest, Record, decode
from maintainer.cacheconfig.order import dependency_order
from maintainer.demo.history import load_history
from maintainer.model.history import Build, History, Stack, stack_of

MAIN = "refs/heads/main"
_BUILDS = Path(__file__).parents[2] / "tests" / "data" / "history.json"
_START = datetime(2026, 8, 3, tzinfo=UTC)


class _RecordedBuild(msgspec.Struct):
    commit: int
    ref: str


def recorded(commits_a_day: int = 12) -> History:
    """Return the recorded builds of four images on the main branch, over 60 commits."""
    builds = msgspec.json.decode(_BUILDS.read_bytes(), type=list[_RecordedBuild])
    on_main = [build for build in builds if build.ref == MAIN]
    exports = [
        decode(entry.content.encode())
        for entry in load_history()
        if entry.ref == MAIN and entry.content is not None
    ]
    keys = _Keys()
    every = timedelta(days=1) / commits_a_day
    made = tuple(
        Build(_START + build.commit * every, keys.add(export))
        for build, export in zip(on_main, exports, strict=True)
    )
    return History(made, keys.stacks, keys.sizes)


class _Keys:
    """The keys of exports, numbered as importers tell them apart.

    A step is the same if it has the same digest and, for each input, a source in common.
    """

    def __init__(self) -> None:
        self.stacks: dict[int, Stack] = {}
        self.sizes: dict[Digest, int] = {}
        self._known: defaultdict[tuple[object, ...], set[int]] = defaultdict(set)
        self._count = 0

    def add(self, config: CacheConfig) -> tuple[int, ...]:
        """Return the keys of an export that lead to a result."""
        numbers: dict[int, int] = {}
        sources = [{way.source for ways in one.inputs for way in ways} for one in config.records]
        for position in dependency_order(sources) or ():
            numbers[position] = self._identify(config.records[position], numbers)
        for position, record in enumerate(config.records):
            for result in record.results:
                stack = stack_of(config, result)
                if numbers[position] not in self.stacks:
                    self.stacks[numbers[position]] = stack
                    self.sizes |= {layer.blob: layer.size for layer in config.layers}
        return tuple(numbers[at] for at, record in enumerate(config.records) if record.results)

    def _identify(self, record: Record, numbers: Mapping[int, int]) -> int:
        ways: list[list[tuple[object, ...]]] = [
            [(record.digest, place, numbers[way.source], way.selector) for way in links]
            for place, links in enumerate(record.inputs)
        ] or [[(record.digest,)]]
        same = set.intersection(*(set().union(*map(self._known.__getitem__, one)) for one in ways))
        self._count += not same
        number = min(same, default=self._count)
        for way in (way for one in ways for way in one):
            self._known[way].add(number)
        return number


_MB = 1_000_000


@dataclass(frozen=True)
class _Image:
    """An image that several branches build."""

    base: int
    """Megabytes of the layer that it stands on; images with the same base share it."""
    steps: tuple[tuple[float, float], ...]
    """Megabytes of each step's layer, and the chance that a commit changes it."""
    chance: float
    """That its first branch builds it within an hour; the others build it less often."""
    branches: int


_IMAGES = (
    *5 * [_Image(60, ((40, 0.02), (90, 0.05), (3, 0.3), (1, 0.9)), 0.3, 4)],
    *3 * [_Image(300, ((1_500, 0.03), (600, 0.1), (30, 0.5), (2, 0.9)), 0.03, 2)],
    *3 * [_Image(60, ((400, 0.05), (150, 0.3), (5, 0.9)), 0.02, 2)],
)


def generated(seed: int = 1, hours: int = 300) -> History:
    """Return builds of services that are built often, and of large images that are built rarely."""
    return _Team(Random(seed)).work(hours)


class _Team:
    """Developers who change steps of images, and what their builds make."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._sizes: dict[Digest, int] = {}
        self._stacks: dict[int, Stack] = {}
        self._newest: dict[tuple[int, int], list[int]] = {}
        self._bases = {
            base: self._key((), base) for base in sorted({image.base for image in _IMAGES})
        }

    def work(self, hours: int) -> History:
        builds = []
        for hour in range(hours):
            for number, image in enumerate(_IMAGES):
                for branch in range(image.branches):
                    if self._random.random() < image.chance / (1 + 2 * branch):
                        keys = tuple(self._build(number, branch))
                        at = _START + timedelta(hours=hour)
                        builds.append(Build(at, keys))
        return History(tuple(builds), self._needed(builds), self._sizes)

    def _build(self, number: int, branch: int) -> list[int]:
        """Return the keys of a build: those of the build before, as far as nothing has changed."""
        image = _IMAGES[number]
        before = self._newest.get((number, branch)) or self._newest.get((number, 0))
        changed = (n for n, (_, chance) in enumerate(image.steps) if self._random.random() < chance)
        first = next(changed, len(image.steps)) if before else 0
        keys = (before or [self._bases[image.base]])[: first + 1]
        for size, _ in image.steps[first:]:
            keys.append(self._key(self._stacks[keys[-1]], size))
        self._newest[number, branch] = keys
        return keys

    def _key(self, below: Stack, megabytes: float) -> int:
        """Return a new key, which leads to a new layer of about that size."""
        blob = Digest(f"sha256:{len(self._sizes):064x}")
        self._sizes[blob] = int(megabytes * _MB * math.exp(self._random.gauss(0, 0.6)))
        self._stacks[len(self._stacks)] = (*below, blob)
        return len(self._stacks) - 1

    def _needed(self, builds: Iterable[Build]) -> Mapping[int, Stack]:
        return {key: self._stacks[key] for build in builds for key in build.keys}
