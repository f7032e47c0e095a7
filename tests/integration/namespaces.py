"""Hosts on one machine: network namespaces, each joined to a hub by a cable that can be cut."""

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_NAMESPACES = Path("/run/netns")
_OF_THE_NETWORK = 0x40000000
"""CLONE_NEWNET."""
HUB = "10.0.0.1"
"""The address of the hub, for all hosts."""


def enter(namespace: str) -> None:
    """Let the sockets that this thread opens from now on be those of a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with (_NAMESPACES / namespace).open() as file:
        if libc.setns(file.fileno(), _OF_THE_NETWORK):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")


@dataclass(frozen=True)
class Cable:
    """What joins a host to the hub. Only the two can use its addresses."""

    hub: str
    host: str
    number: int

    def listen(self) -> socket.socket:
        """Return a socket that the host can connect to, on some port of the hub."""

        def listen() -> socket.socket:
            enter(self.hub)
            return socket.create_server((HUB, 0))

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(listen).result()

    def cut(self) -> None:
        """Let nothing pass any more."""
        _ip("-n", self.hub, "link", "set", f"host{self.number}", "down")

    def mend(self) -> None:
        """Let everything pass again."""
        _ip("-n", self.hub, "link", "set", f"host{self.number}", "up")


@contextmanager
def cables(number: int) -> Iterator[Sequence[Cable]]:
    """Have so many hosts, and a hub; skip the test where that is not possible."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("namespaces need root, and iproute2")
    hub, *hosts = names = [f"maintainer-{os.getpid()}-{one}" for one in range(number + 1)]
    try:
        for name in names:
            if _ip("netns", "add", name, check=False):
                pytest.skip("this machine allows no namespaces")
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", hub, "address", "add", f"{HUB}/32", "dev", "lo")
        yield [_lay(Cable(hub, host, one)) for one, host in enumerate(hosts, 1)]
    finally:
        for name in names:
            _ip("netns", "del", name, check=False)


def _lay(cable: Cable) -> Cable:
    at_hub, at_host = f"host{cable.number}", "hub"
    pair = ("type", "veth", "peer", "name", at_host, "netns", cable.host)
    _ip("-n", cable.hub, "link", "add", at_hub, *pair)
    _ip("-n", cable.hub, "address", "add", f"10.0.{cable.number}.1/24", "dev", at_hub)
    _ip("-n", cable.host, "address", "add", f"10.0.{cable.number}.2/24", "dev", at_host)
    _ip("-n", cable.hub, "link", "set", at_hub, "up")
    _ip("-n", cable.host, "link", "set", at_host, "up")
    _ip("-n", cable.host, "route", "add", HUB, "via", f"10.0.{cable.number}.1")
    return cable


def _ip(*arguments: str, check: bool = True) -> int:
    return subprocess.run(["ip", *arguments], check=check, stderr=subprocess.DEVNULL).returncode
