"""Links between processes on loopback, which can hold up what passes, or end it."""

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_AT_ONCE = struct.pack("ii", 1, 0)
"""Closed with this, a connection is reset."""


class Link:
    """A way for TCP connections to one server. Its methods may be called from any thread."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, reach: Callable[[], Awaitable[Streams]], delay: float
    ) -> None:
        self._loop = loop
        self._delay = delay
        self._reach = reach
        self._passing = asyncio.Event()
        self._passing.set()
        self._refuses = False
        self._connected: set[asyncio.StreamWriter] = set()
        self.port = 0

    def hold(self) -> None:
        """Let nothing pass in either direction; what was sent waits, and new connections do."""
        self._call(self._passing.clear)

    def reset(self) -> None:
        """End all connections."""
        self._call(self._end_all)

    def cut(self) -> None:
        """End all connections, and refuse new ones."""

        def cut() -> None:
            self._refuses = True
            self._end_all()

        self._call(cut)

    def restore(self) -> None:
        """Let everything pass."""

        def restore() -> None:
            self._refuses = False
            self._passing.set()

        self._call(restore)

    def _call(self, function: Callable[[], object]) -> None:
        async def call() -> None:
            function()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def _end_all(self) -> None:
        for writer in self._connected:
            _reset(writer)
        self._connected.clear()

    async def listen(self, place: socket.socket | None) -> asyncio.Server:
        """Listen on a socket, or on some port of loopback."""
        found = place or socket.create_server(("127.0.0.1", 0))
        server = await asyncio.start_server(self._connect, sock=found)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            _reset(writer)
            return
        self._connected.add(writer)
        try:
            await self._passing.wait()
            far_reader, far_writer = await self._reach()
        except OSError:
            _reset(writer)
            return
        self._connected.add(far_writer)
        ways = [
            asyncio.ensure_future(self._pass_on(*way))
            for way in ((reader, far_writer), (far_reader, writer))
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for one in (writer, far_writer):
                self._connected.discard(one)
                one.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(2**16):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._passing.wait()
                writer.write(piece)
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    writer.transport.abort()


class Network:
    """Makes links, which all work on one thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._servers: list[asyncio.Server] = []

    def to_port(self, port: int, *, delay: float = 0, place: socket.socket | None = None) -> Link:
        """Return a link to a port on loopback; what passes takes so many seconds."""
        return self._make(lambda: asyncio.open_connection("127.0.0.1", port), delay, place)

    def to_socket(self, path: str, *, place: socket.socket | None = None) -> Link:
        """Return a link to a server that listens on a file."""
        return self._make(lambda: asyncio.open_unix_connection(path), 0, place)

    def _make(
        self, reach: Callable[[], Awaitable[Streams]], delay: float, place: socket.socket | None
    ) -> Link:
        """Make a link, from a socket that listens already, or from some port of loopback."""
        link = Link(self._loop, reach, delay)
        listening = asyncio.run_coroutine_threadsafe(link.listen(place), self._loop)
        self._servers.append(listening.result())
        return link

    async def end(self) -> None:
        """End all that is there."""
        for server in self._servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def a_network() -> Iterator[Network]:
    """Have links as long as the context lasts."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="network", daemon=True)
    thread.start()
    network = Network(loop)
    try:
        yield network
    finally:
        asyncio.run_coroutine_threadsafe(network.end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
