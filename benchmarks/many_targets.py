"""How long pages take that show many targets: `python -m benchmarks.many_targets`."""

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2

from maintainer.graph.database import Database
from maintainer.serve.web.app import Pages
from maintainer.webserver import listen, serving, url_of
from tests.integration.many_targets import fill

_TARGETS = 10_000
_RUNS = 20
_REQUESTS = 100
_PATHS = (
    "/",
    "/?show=all&page=100",
    "/?q=app-77",
    "/metrics",
    "/metrics?target=octo.app-7",
    "/readyz",
    "/targets/octo.app-60",
)


def main(arguments: Sequence[str]) -> None:
    """Print the median, the 99th percentile and the CPU of each page."""
    number = int(arguments[0]) if arguments else _TARGETS
    now = datetime.now(UTC)
    with TemporaryDirectory() as folder, closing(Database(f"sqlite:///{folder}/graph.db")) as graph:
        graph.upgrade()
        with graph.begin() as connection:
            fill(connection, number, now, runs=_RUNS)
        size = Path(folder, "graph.db").stat().st_size
        print(f"{number:,} targets, {_RUNS} runs of each, {size / 1e6:.0f} MB")
        pages = Pages(graph, lambda: True, lambda: now, dict, str)
        socket = listen("127.0.0.1", 0)
        with serving(pages.app(), socket), httpx2.Client(base_url=url_of(socket)) as client:
            for path in _PATHS:
                _measure(client, path)


def _measure(client: httpx2.Client, path: str) -> None:
    answer = client.get(path, timeout=60)
    times, cpu = [], time.process_time()
    for _ in range(_REQUESTS):
        began = time.perf_counter()
        answer = client.get(path, timeout=60)
        times.append(time.perf_counter() - began)
    cpu = (time.process_time() - cpu) / _REQUESTS
    times.sort()
    middle, high = times[len(times) // 2], times[len(times) * 99 // 100]
    print(
        f"{path:28} {middle * 1000:7.1f} ms, p99 {high * 1000:7.1f} ms, "
        f"CPU {cpu * 1000:6.1f} ms, {len(answer.content) / 1000:6.1f} kB"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
