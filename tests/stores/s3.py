"""A bucket of moto's server: real HTTP, the real SDK, and a clock of ours.

Builds write to the server's storage directly, in the way of BuildKit's `type=s3`.
"""

from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from moto import settings as moto_settings
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3 import models
from requests.structures import CaseInsensitiveDict
from werkzeug.serving import WSGIRequestHandler, make_server

from maintainer.cacheconfig import encode
from maintainer.report import Report
from maintainer.stores.objects.store import ObjectStore
from maintainer.stores.s3.address import Address
from maintainer.stores.s3.client import open_bucket
from tests.integration.invariants import import_index
from tests.integration.simulated_runs import Memory
from tests.integration.world import START, blob_of, built
from tests.stores.memory import Vault
from tests.stores.memory_place import Room
from tests.stores.place import How, Results
from tests.stores.runs import run_on
from tests.stores.scripted import serving

BUCKET = "cache"
BLOBS = "app/blobs/"
MANIFESTS = "app/manifests/"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}


_CONDITIONS = {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"}

Reply = tuple[str, dict[str, str], bytes]
"""The status of an answer, its headers by their names in lower case, and its body."""
Lie = Callable[[str, Reply], Reply]
"""Makes another answer of a true one; it also gets the method and the path with the query."""


class _Quiet(WSGIRequestHandler):
    """Answers without a word."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Log nothing."""


def _lie(app: Any, environment: dict[str, Any], start: Any, lie: Lie) -> Iterable[bytes]:
    """Answer with what a lie makes of the true answer."""
    true: list[tuple[str, dict[str, str]]] = []

    def hear(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
        true.append((status, {name.lower(): value for name, value in headers}))

    body = b"".join(app(environment, hear))
    what = (
        f"{environment['REQUEST_METHOD']} {environment['PATH_INFO']}?{environment['QUERY_STRING']}"
    )
    status, headers, said = lie(what, (*true[0], body))
    if "content-length" in headers and said != body:
        headers |= {"content-length": str(len(said))}
    start(status, list(headers.items()))
    return [said]


class Moto:
    """The server, and its storage."""

    def __init__(self, bucket: str = BUCKET) -> None:
        self._bucket = bucket
        self.before: Callable[[], None] = lambda: None
        """Called before each request."""
        self.now = START
        """The time of the server."""
        self.ignores_conditions = False
        """Whether it takes every write, as some servers do."""
        self.refuses_conditions = False
        """Whether it answers that it does not know them."""
        self.lie: Lie | None = None
        """What it answers in place of the truth."""
        self.request = ("", "")
        """The method and the path of the request that is answered, or was answered last."""
        self.failures: list[BaseException] = []
        """What `before` has raised."""
        self.events = count()
        """Numbers what happens, in its order."""
        self.looks: dict[str, int] = {}
        """The last look-up of each object, by its path."""
        self.url = ""

    @property
    def backend(self) -> models.S3Backend:
        """The storage."""
        return models.s3_backends[DEFAULT_ACCOUNT_ID]["aws"]

    @property
    def keys(self) -> Any:
        """The objects of the bucket, by key."""
        return self.backend.buckets[self._bucket].keys

    def empty(self) -> None:
        """Begin with one empty bucket."""
        self.backend.reset()
        self.backend.create_bucket(self._bucket, "us-east-1")

    def export(self, name: str, *steps: str) -> None:
        """Store the blobs of a build, and then its index, under a name."""
        for step in steps:
            self.put(BLOBS + blob_of(step), step.encode())
        self.write(name, *steps)

    def write(self, name: str, *steps: str) -> None:
        """Write the index of a build, and nothing else."""
        self.put(MANIFESTS + name, encode(built(*steps, at=self.now)))

    def blobs_of(self, name: str) -> frozenset[str]:
        """Return the blobs that an importer finds by a name."""
        return import_index(self.keys[MANIFESTS + name].value).blobs

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self.backend.put_object(self._bucket, key, content)

    def begin_upload(self, key: str) -> None:
        """Begin an upload of several parts."""
        nothing = CaseInsensitiveDict[Any]()
        self.backend.create_multipart_upload(
            self._bucket, key, nothing, "STANDARD", {}, None, "", ""
        )

    def touch(self, key: str) -> None:
        """Copy an object onto itself, as exports do with old blobs."""
        self.keys[key].last_modified = self.now.replace(tzinfo=None)

    @contextmanager
    def serving(self) -> Iterator["Moto"]:
        """Serve on loopback."""
        app = DomainDispatcherApplication(create_backend_app)

        def answer(environment: dict[str, Any], start: Any) -> Iterable[bytes]:
            self.request = method, path = environment["REQUEST_METHOD"], environment["PATH_INFO"]
            try:
                self.before()
            except BaseException as error:  # noqa: BLE001 - it belongs to the test, not the server
                self.failures.append(error)
            if method == "HEAD":
                self.looks[path] = next(self.events)
            if self.refuses_conditions and environment.keys() & _CONDITIONS:
                start("501 Not Implemented", [("Content-Type", "application/xml")])
                return [b"<Error><Code>NotImplemented</Code></Error>"]
            if self.ignores_conditions:
                for name in _CONDITIONS:
                    environment.pop(name, None)

            def start_at(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
                others = [one for one in headers if one[0].lower() != "date"]
                date = format_datetime(self.now, usegmt=True)
                return start(status, [*others, ("Date", date)], *more)

            if self.lie:
                return _lie(app, environment, start_at, self.lie)
            answered: Iterable[bytes] = app(environment, start_at)
            return answered

        server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=_Quiet)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(models, "utcnow", lambda: self.now.replace(tzinfo=None))
            for name, value in ENVIRONMENT.items():
                patch.setenv(name, value)
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()
                server.server_close()

    @contextmanager
    def authorizing(self, policy: str) -> Iterator[dict[str, str]]:
        """Allow from now on only what a policy allows; return the credentials of its user."""
        users = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
        users.create_user("aws", "maintainer")
        users.put_user_policy("maintainer", "least", policy)
        key = users.create_access_key("maintainer")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(moto_settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
            yield {
                "AWS_ACCESS_KEY_ID": key.access_key_id,
                "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
            }
        users.reset()

    def address(self, prefix: str = "app/", **more: Any) -> Address:
        """Return where the cache is."""
        return Address(self._bucket, prefix, "us-east-1", self.url, path_style=True, **more)


@contextmanager
def a_server(bucket: str = BUCKET) -> Iterator[Moto]:
    """Serve one empty bucket."""
    moto = Moto(bucket)
    with moto.serving():
        moto.empty()
        yield moto


class _Blobs(MutableMapping[str, datetime]):
    """The blobs of the bucket, with the times of their last writes."""

    def __init__(self, moto: Moto) -> None:
        self._moto = moto

    def __getitem__(self, digest: str) -> datetime:
        modified: datetime = self._moto.keys[BLOBS + digest].last_modified
        return modified.replace(tzinfo=UTC)

    def __setitem__(self, digest: str, at: datetime) -> None:
        self._moto.put(BLOBS + digest, b"0123456789")
        self._moto.keys[BLOBS + digest].last_modified = at.replace(tzinfo=None)

    def __delitem__(self, digest: str) -> None:
        del self._moto.keys[BLOBS + digest]

    def __iter__(self) -> Iterator[str]:
        return (key.removeprefix(BLOBS) for key in list(self._moto.keys) if key.startswith(BLOBS))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def setdefault(self, digest: str, default: datetime = START) -> datetime:
        """Upload a blob, or touch it if it is there."""
        self[digest] = default
        return default


class _Indexes(MutableMapping[str, tuple[int, bytes, datetime]]):
    """The indexes of the bucket: their versions are hashes of their contents."""

    def __init__(self, moto: Moto) -> None:
        self._moto = moto

    def __getitem__(self, name: str) -> tuple[int, bytes, datetime]:
        found = self._moto.keys[MANIFESTS + name]
        return hash(found.value), found.value, found.last_modified.replace(tzinfo=UTC)

    def __setitem__(self, name: str, index: tuple[int, bytes, datetime]) -> None:
        self._moto.put(MANIFESTS + name, index[1])
        self._moto.keys[MANIFESTS + name].last_modified = index[2].replace(tzinfo=None)

    def __delitem__(self, name: str) -> None:
        del self._moto.keys[MANIFESTS + name]

    def __iter__(self) -> Iterator[str]:
        names = [key for key in list(self._moto.keys) if key.startswith(MANIFESTS)]
        return (key.removeprefix(MANIFESTS) for key in names)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Bucket(Vault):
    """The bucket, as builders and watchers see it."""

    def __init__(self, moto: Moto) -> None:
        super().__init__(_Blobs(moto), _Indexes(moto))


class BucketRoom(Room):
    """Steps are requests; of two runs, all of the second is one step of the first."""

    exports_touch = True

    def __init__(self, folder: Path, memories: Sequence[Memory], moto: Moto) -> None:
        moto.empty()
        super().__init__(folder, memories, _Bucket(moto))
        self._moto = moto
        moto.looks.clear()
        self._touches: dict[str, int] = {}
        """The last export of each blob."""
        self._late: set[str] = set()
        """What was exported after the last look-up before a deletion."""

    def build(self, image: str, step: str, *, other_form: bool) -> Results | None:
        """Export; it counts as failed if the run overwrites it in the same moment.

        Without conditions, nobody can tell the run between its last look and its write.
        """
        results = super().build(image, step, other_form=other_form)
        has_conditions = not (self._moto.ignores_conditions or self._moto.refuses_conditions)
        touched = next(self._moto.events)
        self._touches |= {blob: touched for result in results or () for blob in result}
        is_lost = self._moto.request == ("PUT", f"/{BUCKET}/{MANIFESTS}{image}")
        return None if is_lost and not has_conditions else results

    def problems(self) -> list[str]:
        """Return what the watcher has seen, without touches that came too late (SAFETY.md)."""
        excused = tuple(f"I1: {blob} was deleted" for blob in self._late)
        return [one for one in super().problems() if not one.startswith(excused)]

    def _step(self) -> None:
        is_deletion = self._moto.request == ("POST", f"/{BUCKET}")
        self._vault.step()
        if is_deletion:
            looks = self._moto.looks
            self._late |= {
                blob
                for blob, touched in self._touches.items()
                if touched > looks.get(f"/{BUCKET}/{BLOBS}{blob}", touched)
            }

    async def _collect(self, memory: Memory, how: How, now: datetime, **settings: object) -> Report:
        """Do a run over HTTP."""
        self._moto.now = now
        self._moto.before = self._step
        address = self._moto.address(touch_refresh=timedelta(0), longest_export=timedelta(0))
        try:
            async with open_bucket(address) as bucket:
                store = ObjectStore(bucket, address.layout, max_index_size=2**20)
                more = settings | {"export_wait": 0}
                report = await run_on(store, memory, how, now, **more)
        finally:
            self._moto.before, self._moto.request = (lambda: None), ("", "")
        for failure in self._moto.failures:
            raise failure
        return report


class _HalfABody(BaseHTTPRequestHandler):
    """Promises a body and ends the connection."""

    def do_GET(self) -> None:
        """Send the beginning of an object."""
        self.send_response(200)
        self.send_header("Content-Length", "5000")
        self.send_header("ETag", '"half"')
        self.send_header("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing."""


@contextmanager
def half_a_body() -> Iterator[str]:
    """Serve downloads that break off; returns the URL."""
    with _serving(_HalfABody) as url:
        yield url


@contextmanager
def one_page(*keys: str) -> Iterator[str]:
    """Serve a list that never ends: the same page, and the same place to go on."""
    objects = "".join(
        f"<Contents><Key>{key}</Key><Size>1</Size><ETag>e</ETag>"
        "<LastModified>2025-01-01T00:00:00Z</LastModified></Contents>"
        for key in keys
    )
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>1</NextContinuationToken>"
    page = f"<ListBucketResult>{more}{objects}</ListBucketResult>".encode()

    class Page(_HalfABody):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

    with _serving(Page) as url:
        yield url


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with serving(handler) as url, pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield url
