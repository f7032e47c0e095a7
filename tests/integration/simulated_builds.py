"""Builds of a small repository, step by step as BuildKit does them, straight on the cache's state.

A build may stop anywhere: it then leaves blobs that no index names, or a key that stays reserved.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from maintainer.cacheconfig import (
    BlobKey,
    CacheConfig,
    Digest,
    IndexId,
    IndexKey,
    Layer,
    Link,
    Record,
    Ref,
    Result,
    Scope,
    SignatureKey,
    content_digest,
    decode,
    encode,
    parse_key,
)
from maintainer.cacheconfig.keys import ENTRY_VERSION
from maintainer.cacheconfig.model import NO_PARENT
from maintainer.cacheconfig.timestamps import Nanoseconds
from maintainer.emulator import ActionsCache, Entry
from maintainer.emulator.state import KeyTakenError
from maintainer.errors import InvalidIndexError
from tests.integration.world import blob_of

Usable = tuple[str, tuple[Digest, ...], Nanoseconds]
"""A result: the digest of its record, the blobs that it needs, and when it was made.

A layer is of no use without those below it, even where a result does not bring them along.
"""


@dataclass(frozen=True)
class Step:
    """One step of the repository's images."""

    inputs: tuple[tuple[int, ...], ...] = ()
    """For each input the alternatives; builds know the first, and some of the others."""
    below: int | None = None
    """The step whose layer is below."""
    beside: tuple[int, ...] = ()
    """The steps whose layers stand beside it: its result is a chain."""
    has_result: bool = True


STEPS = (
    Step(has_result=False),  # sources
    Step(),  # a base image
    Step(((1,),), below=1),
    Step(((2,), (0,)), below=2),
    Step(((2, 1),), below=2),
    Step(((3,),), has_result=False),  # only a way
    Step(((5,),), below=3),
    Step(((3, 6), (4,)), beside=(3, 4)),
)
_VARYING = 3
"""From this step on, a step may give something else each time."""


def built(
    targets: Collection[int], *, variant: int, only_targets: bool, at: datetime
) -> CacheConfig:
    """Return the index of a build of some targets; `only_targets` is BuildKit's `mode=min`."""
    wanted = _needed(targets)
    layers = _Layers(variant, at)
    numbers = {step: number for number, step in enumerate(wanted)}
    records = []
    for step in wanted:
        results: tuple[Result, ...] = ()
        if STEPS[step].has_result and (step in targets or not only_targets):
            results = (layers.result(step),)
        inputs = tuple(
            tuple(Link(numbers[one], "") for one in ways if one in numbers)
            for ways in STEPS[step].inputs
        )
        records.append(Record(_name(f"key {step}"), results, inputs))
    return CacheConfig(tuple(layers.layers), tuple(records))


def _needed(targets: Collection[int]) -> list[int]:
    wanted = set(targets)
    for step in reversed(range(len(STEPS))):
        if step in wanted:
            wanted |= {ways[0] for ways in STEPS[step].inputs}
    return sorted(wanted)


class _Layers:
    def __init__(self, variant: int, at: datetime) -> None:
        self.layers: list[Layer] = []
        self._variant = variant
        self._at = Nanoseconds(int(at.timestamp() * 1_000_000) * 1_000)
        self._places: dict[int, int] = {}

    def result(self, step: int) -> Result:
        if STEPS[step].beside:
            chain = [self._add(one) for one in (*STEPS[step].beside, step)]
            return Result(tuple(chain), with_parents=False, created_at=self._at)
        return Result((self._add(step),), with_parents=True, created_at=self._at)

    def _add(self, step: int) -> int:
        if step not in self._places:
            below = STEPS[step].below
            parent = NO_PARENT if below is None else self._add(below)
            name = f"step {step}" + (f", variant {self._variant}" if step >= _VARYING else "")
            self.layers.append(
                Layer(
                    blob=blob_of(name),
                    parent=parent,
                    diff_id=blob_of(f"diff of {name}"),
                    media_type="application/vnd.oci.image.layer.v1.tar+gzip",
                    size=100 * (step + 1),
                    created_at=self._at,
                )
            )
            self._places[step] = len(self.layers) - 1
        return self._places[step]


def _name(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class Build:
    """One build, which `proceed` takes a step further.

    Its export looks each blob up or, with `lists`, lists the stored blobs once when it begins, and
    looks none of them up.
    """

    def __init__(
        self,
        config: CacheConfig,
        index: IndexId,
        readable: Sequence[str],
        cache: ActionsCache,
        *,
        lists: bool = False,
    ) -> None:
        self._config = config
        self._index = index
        self._readable = readable
        self._cache = cache
        self._steps = self._do()
        self.done = False
        self._lists = lists
        self.counts_on: set[Digest] = set()
        """The blobs that it has seen in the list, and looks up no more."""
        self.uploaded: set[int] = set()
        """The entries of the blobs that it has uploaded."""

    @property
    def index(self) -> IndexId:
        """Where it exports to."""
        return self._index

    def proceed(self, steps: int = 1) -> None:
        """Do so many steps."""
        for _ in range(steps):
            self.done = next(self._steps, True) or self.done

    def finish(self) -> None:
        """Do all that is left."""
        while not self.done:
            self.proceed()

    def _do(self) -> Iterator[bool]:
        if self._lists:
            self.counts_on = blobs_in(self._cache.entries(), self._readable) & self._config.blobs
            yield False
        for layer in self._config.layers:
            key = str(BlobKey(layer.blob))
            if layer.blob not in self.counts_on and not self._finds(key):
                yield False
                self._store(key, bytes(layer.size))
            yield False
        content = encode(self._config)
        if self._index.signed:
            self._store(str(SignatureKey(content_digest(content))), b"bundle")
            yield False
        key = self._reserve()
        yield False
        upload = self._cache.find_upload(self._index.ref, key, ENTRY_VERSION)
        upload.put(content)
        self._cache.finalize(upload, len(content))
        yield True

    def _finds(self, key: str) -> bool:
        if self._lists:
            return False
        return self._cache.look_up(self._readable, key, [], ENTRY_VERSION) is not None

    def _store(self, key: str, content: bytes) -> None:
        try:
            upload = self._cache.reserve(self._index.ref, key, ENTRY_VERSION)
        except KeyTakenError:
            return  # Another build has been faster.
        upload.put(content)
        self.uploaded.add(self._cache.finalize(upload, len(content)).id)

    def _reserve(self) -> str:
        """Take the number after that of the entry created last, or the first one free behind it."""
        refs, prefix = [self._index.ref], self._index.prefix
        found = self._cache.look_up(refs, prefix, [prefix], ENTRY_VERSION)
        number = int(found.key.rpartition("#")[2]) if found else 0
        while True:
            number += 1
            key = str(self._index.key(number))
            try:
                self._cache.reserve(self._index.ref, key, ENTRY_VERSION)
            except KeyTakenError:
                continue
            return key


def index_of(entry: Entry) -> IndexId | None:
    """Return which index an entry is a generation of, if builders in its ref read it."""
    key = parse_key(entry.key)
    if entry.version != ENTRY_VERSION or not isinstance(key, IndexKey):
        return None
    index = IndexId(Ref(entry.ref), Scope(key.scope), key.signed)
    return index if entry.key.startswith(index.prefix) else None


def read_by_builders(entries: Collection[Entry], index: IndexId) -> Entry | None:
    """Return what a builder that does not sign reads: with the prefix, what was created last."""
    found = [
        entry
        for entry in entries
        if entry.ref == index.ref
        and entry.version == ENTRY_VERSION
        and entry.key.startswith(str(index))
    ]
    return max(found, key=lambda entry: (entry.created_at, entry.id), default=None)


def blobs_in(entries: Iterable[Entry], refs: Collection[str]) -> set[Digest]:
    """Return which blobs exist where a token reads that reads these refs."""
    keys = [parse_key(e.key) for e in entries if e.ref in refs and e.version == ENTRY_VERSION]
    return {key.digest for key in keys if isinstance(key, BlobKey)}


def downloadable_in(entries: Iterable[Entry], refs: Collection[str]) -> set[Digest]:
    """Return the blobs that exist, and of which some entry still has its content."""
    return blobs_in((entry for entry in entries if not entry.lost), refs)


def usable_in(content: bytes | None) -> frozenset[Usable]:
    """Return the results of an index; none if it is not valid."""
    try:
        config = decode(content or b"")
    except InvalidIndexError:
        return frozenset()
    return frozenset(
        (record.digest, tuple(_blobs(config, result)), result.created_at)
        for record in config.records
        for result in record.results
    )


def _blobs(config: CacheConfig, result: Result) -> Iterator[Digest]:
    for layer in result.layers:
        at = layer
        while at != NO_PARENT:
            yield config.layers[at].blob
            at = config.layers[at].parent
