"""A cache service with any number of entries, which it makes up page by page and does not hold.

One index references two hundred blobs; nothing references the others.

    python -m benchmarks.many_entries 1000000

serves so many, does a dry run on them in a process of its own, and prints its peak of memory.

    python -m benchmarks.many_entries serve 1000000

prints the variables of a client, and serves until stdin ends. These entries are so new that a run
has nothing to do, unless it merges: this service takes no writes. No two were created at one time:
of many that were, a list cannot know whether it is complete, and is read again.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.handlers import serving
from maintainer.cacheconfig import ENTRY_VERSION, BlobKey, Digest, IndexId, Ref, Scope, encode
from maintainer.emulator.tokens import Tokens
from tests.integration.world import MAIN, blob_of, built

_PAGE = 100
_STEPS = [f"step {number}" for number in range(200)]
_INDEX = encode(built(*_STEPS))
_KEY = str(IndexId(Ref(MAIN), Scope("buildkit")).key(1))
_OLD, _YOUNG, _NOW = timedelta(days=30), timedelta(hours=2), timedelta(minutes=30)
_SPACED = timedelta(hours=1)
"""All were created within this time."""
_RUN = """
import atexit, resource, sys
sys.argv = ["maintainer", "gc", "--dry-run", "--quiet"]
atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
from maintainer.__main__ import main
main()
"""


class _Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    count = 0
    first_at = datetime.now(UTC)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name upstream
        """Say nothing."""

    def do_GET(self) -> None:
        """List a page, or download the index."""
        url = urlsplit(self.path)
        asked = parse_qs(url.query)
        if url.path.endswith("/caches"):
            page = int(asked.get("page", ["1"])[0])
            last = self.count - (page - 1) * _PAGE
            ids: Sequence[int] = range(last, max(0, last - _PAGE), -1)
            if asked["direction"] == ["asc"]:
                ids = range((page - 1) * _PAGE + 1, min(self.count, page * _PAGE) + 1)
            self._send({"total_count": self.count, "actions_caches": [*map(self._entry, ids)]})
        else:
            self._answer(_INDEX)

    def do_POST(self) -> None:
        """Look a key up: only the index is ever asked for."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        found = any(_KEY.startswith(key) for key in (asked["key"], *asked["restore_keys"]))
        url = f"http://{self.headers['host']}/index" if found else ""
        key = _KEY if found else ""
        self._send({"ok": found, "signed_download_url": url, "matched_key": key})

    def _send(self, body: dict[str, Any]) -> None:
        self._answer(json.dumps(body).encode())

    def _answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _entry(self, number: int) -> dict[str, Any]:
        created_at = f"{self.first_at + number / self.count * _SPACED:%Y-%m-%dT%H:%M:%S.%fZ}"
        return {
            "id": number,
            "ref": MAIN,
            "key": _key(number),
            "version": ENTRY_VERSION,
            "size_in_bytes": len(_INDEX) if number == 1 else 1_000,
            "created_at": created_at,
            "last_accessed_at": created_at,
        }


def _key(number: int) -> str:
    if number == 1:
        return _KEY
    if number <= len(_STEPS) + 1:
        return str(BlobKey(blob_of(_STEPS[number - 2])))
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return str(BlobKey(Digest(f"sha256:{digest}")))


def _serve(count: int, age: timedelta) -> AbstractContextManager[str]:
    return serving(_Service, count=count, first_at=datetime.now(UTC) - age)


def _variables(url: str) -> dict[str, str]:
    return {
        "ACTIONS_RUNTIME_TOKEN": Tokens().make_runtime_token(MAIN, write=True),
        "ACTIONS_RESULTS_URL": f"{url}/",
        "ACTIONS_CACHE_SERVICE_V2": "true",
        "GITHUB_REPOSITORY": "octo/app",
        "GITHUB_API_URL": url,
        "GITHUB_TOKEN": "token",
        "MAINTAINER_VERIFY_AFTER": "0s",
        "MAINTAINER_QUOTA": "10TB",
    }


def measure(count: int, *, are_new: bool = False) -> int:
    """Return the peak of memory, in bytes, of a process that does a dry run on so many entries.

    New ones are half an hour to an hour and a half old, so many may be of exports in progress.
    """
    age = _SPACED + _NOW if are_new else _OLD
    with _serve(count, age) as url, tempfile.TemporaryDirectory() as folder:
        environment = os.environ | _variables(url)
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        run = [sys.executable, "-c", _RUN]
        done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, check=True)
    return int(done.stdout.split()[-1]) * 1024


def serve(count: int) -> None:
    """Serve so many young entries until stdin ends: no export can be in progress any more."""
    with _serve(count, _YOUNG) as url:
        print(json.dumps(_variables(url)), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        for size in (1_000, int(sys.argv[1])):
            print(f"{size:,} entries: {measure(size) / 1e6:,.0f} MB")
