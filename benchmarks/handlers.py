"""Serves answers that are made up as they are asked for, such as the pages of a very long list."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], **known: object) -> Iterator[str]:
    """Serve on loopback; `known` are attributes of the handler. Yields the URL."""
    counted = type("Counted", (handler,), known)
    server = ThreadingHTTPServer(("127.0.0.1", 0), counted)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
