"""Root without the right to write what the mode of a file forbids."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_VERSION_3 = 0x20080522
_DAC_OVERRIDE = 1 << 1


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    """Half of the capabilities of a thread."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


@contextmanager
def bound_by_modes() -> Iterator[None]:
    """Let the modes of files bind this thread, even if it is root's.

    Root stays root, and may still read all: another user could not load the modules and migrations
    of a clone below a folder that only root may enter.
    """
    if os.geteuid() != 0:
        yield
    elif sys.platform == "linux":
        before = _get()
        _set(before, before[0].effective & ~_DAC_OVERRIDE)
        try:
            yield
        finally:
            _set(before, before[0].effective)
    else:
        os.seteuid(65_534)
        try:
            yield
        finally:
            os.seteuid(0)


def _get() -> ctypes.Array[_Capabilities]:
    capabilities = (_Capabilities * 2)()
    _call("capget", capabilities)
    return capabilities


def _set(capabilities: ctypes.Array[_Capabilities], effective: int) -> None:
    """Make these capabilities effective, of those with the lower numbers."""
    low, high = capabilities
    changed = (_Capabilities * 2)(
        _Capabilities(effective, low.permitted, low.inheritable),
        _Capabilities(high.effective, high.permitted, high.inheritable),
    )
    _call("capset", changed)


def _call(name: str, capabilities: ctypes.Array[_Capabilities]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(ctypes.byref(_Header(_VERSION_3, 0)), capabilities) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
