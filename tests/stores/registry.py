"""A repository of a real registry, which collects at once every blob that no manifest references.

Builds write to the server's storage directly, in the way of BuildKit's `type=registry`.
"""

import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from maintainer.cacheconfig import decode
from maintainer.errors import InvalidIndexError
from maintainer.report import Report
from maintainer.stores.distribution.client import Client
from maintainer.stores.distribution.packages import Packages
from maintainer.stores.http.client import Http
from maintainer.stores.http.requests import RequestLog
from maintainer.stores.registry.address import Address
from maintainer.stores.registry.store import RegistryStore
from maintainer.stores.registry.untagged import ONLY_TAGS
from tests.integration.directories import CONFIG, INDEX, MANIFEST
from tests.integration.invariants import RefusedIndexError
from tests.integration.simulated_runs import Memory
from tests.integration.world import START, blob_of
from tests.stores.docker_registry import DockerRegistry
from tests.stores.ghcr import TOKEN
from tests.stores.ghcr import Packages as PackagesApi
from tests.stores.memory import Vault
from tests.stores.memory_place import Room
from tests.stores.place import STEPS, TOOLS, How, Results, collections_of
from tests.stores.runs import run_on

_CONTENTS: dict[str, bytes] = {blob_of(step): step.encode() for step in (*STEPS, "x")}
IMAGE = "application/vnd.oci.image.config.v1+json"


class Watched(RequestLog):
    """Calls something before each request, with the kind of the request."""

    before: Callable[[str], None] = staticmethod(lambda _kind: None)

    def count(self, kind: str, *, again: bool) -> None:
        """Count a request that is about to be sent."""
        super().count(kind, again=again)
        self.before(kind)


@asynccontextmanager
async def a_store(
    address: Address, before: Callable[[str], None], packages_url: str | None = None
) -> AsyncIterator[RegistryStore]:
    """Open a repository without credentials."""

    async def nobody() -> None:
        return None

    requests = Watched()
    requests.before = before
    async with Http(requests) as http:
        client = Client(http, address.remote, nobody)
        packages = None
        if packages_url:
            packages = Packages(http, packages_url, address.repository, TOKEN)
        yield RegistryStore(client, address, packages, ONLY_TAGS, max_index_size=2**20)


def put_image(registry: DockerRegistry, tag: str | None, name: str, **config: object) -> str:
    """Push an image of one layer; return the digest of its manifest."""
    written = json.dumps({"os": "linux", "name": name, **config}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": IMAGE,
            "digest": registry.put_blob(written),
            "size": len(written),
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": registry.put_blob(f"layer of {name}".encode()),
                "size": len(f"layer of {name}"),
            }
        ],
    }
    return registry.put_manifest(json.dumps(manifest).encode(), tag)


class _Blobs(MutableMapping[str, datetime]):
    """The layers of the repository, and the images that are there."""

    def __init__(self, registry: DockerRegistry) -> None:
        self._registry = registry
        self.referenced: set[str] = set()
        """Those that a manifest has referenced."""

    def _collect(self) -> None:
        manifests = self._registry.manifests()
        named = set[str]().union(*map(self._registry.referenced_by, manifests))
        for blob in self.referenced - named:
            self._registry.delete_blob(blob)
        self.referenced = named

    def __getitem__(self, key: str) -> datetime:
        if key not in list(self):
            raise KeyError(key)
        return START

    def __setitem__(self, key: str, at: datetime) -> None:
        if key in _CONTENTS:
            self._registry.put_blob(_CONTENTS[key])
        else:
            put_image(self._registry, key, key)

    def __delitem__(self, key: str) -> None:
        self._registry.delete_blob(key)

    def __iter__(self) -> Iterator[str]:
        self._collect()
        yield from (blob for blob in sorted(_CONTENTS) if self._registry.has_blob(blob))
        tags = self._registry.tags()
        yield from (name for name in TOOLS if name in tags)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Indexes(MutableMapping[str, tuple[int, bytes, datetime]]):
    """The indexes of the repository: their versions are hashes of their digests."""

    def __init__(self, registry: DockerRegistry) -> None:
        self._registry = registry
        self.form = MANIFEST
        self.pushed: dict[str, datetime] = {}

    def __getitem__(self, name: str) -> tuple[int, bytes, datetime]:
        digest = self._registry.tags()[name]
        try:
            content = self._registry.index(name)
        except RefusedIndexError:
            content = b""
        return hash(digest), content, START

    def __setitem__(self, name: str, index: tuple[int, bytes, datetime]) -> None:
        try:
            digest = self._registry.export(name, decode(index[1]), self.form)
            self.pushed[digest] = index[2]
        except InvalidIndexError:
            head = {"mediaType": CONFIG, "digest": self._registry.put_blob(index[1]), "size": 1}
            manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": head, "layers": []}
            self._registry.put_manifest(json.dumps(manifest).encode(), name)

    def __delitem__(self, name: str) -> None:
        self._registry.untag(name)

    def __iter__(self) -> Iterator[str]:
        return (tag for tag in self._registry.tags() if tag not in TOOLS)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Repository(Room):
    """Steps are requests; of two runs, all of the second is one step of the first.

    Registries have no conditions of writes: an export in the moment between the look at a tag and
    its write is lost (docs/registries.md). Nothing else is.
    """

    def __init__(
        self,
        folder: Path,
        memories: Sequence[Memory],
        registry: DockerRegistry,
        packages: PackagesApi | None = None,
    ) -> None:
        registry.empty()
        registry.create()
        self._registry = registry
        self._blobs, self._indexes = _Blobs(registry), _Indexes(registry)
        self._kept = folder / "kept"
        self._writes_tag = False
        """Whether a run is about to write a tag that it has just looked at."""
        self._packages = packages
        if packages:
            packages.changed = self._indexes.pushed
        super().__init__(folder, memories, Vault(self._blobs, self._indexes))

    def build(self, image: str, step: str, *, other_form: bool) -> Results | None:
        """Export; the other form is that of older builders."""
        self._indexes.form = INDEX if other_form else MANIFEST
        results = super().build(image, step, other_form=other_form)
        return None if self._writes_tag else results

    async def _collect(self, memory: Memory, how: How, now: datetime, **settings: object) -> Report:
        """Do a run over HTTP."""
        step = self._vault.step

        def before(kind: str) -> None:
            self._writes_tag = kind == "finalize"
            step()
            self._writes_tag = False

        url = None
        if self._packages:
            self._packages.now, url = now, self._packages.url
        async with a_store(self._registry.address(), before, url) as store:
            return await run_on(store, memory, how, now, **settings)

    def keep(self) -> Callable[[], None]:
        """Copy all that is stored."""
        self._memories[0].copy(self._spare)
        shutil.rmtree(self._kept, ignore_errors=True)
        shutil.copytree(self._registry.folder, self._kept)
        seen, referenced = (
            collections_of(self._watcher, but="problems"),
            set(self._blobs.referenced),
        )

        def put_back() -> None:
            self._registry.empty()
            shutil.copytree(self._kept, self._registry.folder, dirs_exist_ok=True)
            self._blobs.referenced = referenced
            vars(self._watcher).update(seen)
            self._memories[0].replace(self._spare)

        return put_back

    def everything(self) -> object:
        """Return all that is stored."""
        return self._registry.tags(), self._registry.manifests(), self._registry.blobs()
