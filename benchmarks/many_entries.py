"""A cache service with as many entries as you like, made up page by page: it holds none of them.

One index references two hundred blobs; nothing references the others.

    python -m benchmarks.many_entries 1000000

serves so many, does a dry run on them in a process of its own, and prints its peak of memory.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from maintainer.cacheconfig import ENTRY_VERSION, BlobKey, Digest, IndexId, Ref, Scope, encode
from maintainer.emulator.tokens import Tokens
from tests.integration.world import MAIN, blob_of, built

_PAGE = 100
_STEPS = [f"step {number}" for number in range(200)]
_INDEX = encode(built(*_STEPS))
_KEY = str(IndexId(Ref(MAIN), Scope("buildkit")).key(1))
_RUN = """
import atexit, resource, sys
sys.argv = ["maintainer", "gc", "--dry-run", "--quiet"]
atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
from maintainer.__main__ import main
main()
"""


class _Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    count = 0

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
            self._send({"total_count": self.count, "actions_caches": list(map(_entry, ids))})
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


def _entry(number: int) -> dict[str, Any]:
    if number == 1:
        key = _KEY
    elif number <= len(_STEPS) + 1:
        key = str(BlobKey(blob_of(_STEPS[number - 2])))
    else:
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        key = str(BlobKey(Digest(f"sha256:{digest}")))
    return {
        "id": number,
        "ref": MAIN,
        "key": key,
        "version": ENTRY_VERSION,
        "size_in_bytes": len(_INDEX) if number == 1 else 1_000,
        "created_at": "2026-01-01T00:00:00Z",
        "last_accessed_at": "2026-01-02T00:00:00Z",
    }


@contextmanager
def _serving(count: int) -> Iterator[str]:
    handler = type("Counted", (_Service,), {"count": count})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def measure(count: int) -> int:
    """Return the peak of memory, in bytes, of a process that does a dry run on so many entries."""
    with _serving(count) as url, tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "ACTIONS_RUNTIME_TOKEN": Tokens().make_runtime_token(MAIN, write=True),
            "ACTIONS_RESULTS_URL": f"{url}/",
            "ACTIONS_CACHE_SERVICE_V2": "true",
            "GITHUB_REPOSITORY": "octo/app",
            "GITHUB_API_URL": url,
            "MAINTAINER_VERIFY_AFTER": "0s",
            "MAINTAINER_QUOTA": "10TB",
        }
        run = [sys.executable, "-c", _RUN]
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        environment["GITHUB_TOKEN"] = "token"
        done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, check=True)
    return int(done.stdout.split()[-1]) * 1024


if __name__ == "__main__":
    for size in (1_000, int(sys.argv[1])):
        print(f"{size:,} entries: {measure(size) / 1e6:,.0f} MB")  # noqa: T201
