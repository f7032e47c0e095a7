"""A fuzzer for what anyone may write: `python -m tests.fuzz TARGET [options of libFuzzer]`.

It needs atheris, which is not among the locked tools: `make fuzz` installs it. Whatever raises
something that nobody expects, or is read back as something else, ends it with the input in a file.
"""

import base64
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

from maintainer.cacheconfig import decode, encode, merge, parse_key, prune
from maintainer.errors import InvalidIndexError, UsageError
from maintainer.sanitize import printable
from maintainer.settings import load_settings, parse_duration
from maintainer.stores.github.token import read_access

_MOST = 4_096
"""Bytes of an input; longer ones only take longer."""


def decoder(data: bytes) -> None:
    """Read an index; what is read can be merged, pruned, and written."""
    try:
        config = decode(data)
    except InvalidIndexError as error:
        _is_one_line(error)
        return
    if decode(encode(config)) != config:
        raise AssertionError("written and read back, it is another index")
    merged = merge([config])
    if merge([merged, config]) != merged:
        raise AssertionError("merged twice, it is another index")
    if prune(merged, config.blobs) != prune(prune(merged, config.blobs), config.blobs):
        raise AssertionError("pruned twice, it is another index")
    decode(encode(merged))


def keys(data: bytes) -> None:
    """Read a key; what is ours is what we would write."""
    text = data.decode("utf-8", "replace")
    for key in (text, f"index-{text}", f"buildkit-blob-1-{text}"):
        parsed = parse_key(key)
        if parsed is not None and str(parsed) != key:
            raise AssertionError(f"{key!r} is read as {parsed!r}")
    if not printable(text).isprintable():
        raise AssertionError(f"{text!r} is not shown escaped")


def token(data: bytes) -> None:
    """Read a runtime token, as it is and as the payload of one."""
    payload = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    for text in (data.decode("latin-1"), f"eyJhbGciOiJub25lIn0.{payload}."):
        try:
            access = read_access(text)
        except UsageError as error:
            _is_one_line(error)
        else:
            if not access.writable <= access.readable:
                raise AssertionError("it may write what it may not read")


def settings(data: bytes) -> None:
    """Read a file of settings, and a duration."""
    path = Path(tempfile.gettempdir()) / "fuzzed.toml"
    path.write_bytes(data)
    try:
        load_settings(path, {})
    except UsageError as error:
        _is_one_line(error)
    try:
        parse_duration(data.decode("latin-1"))
    except ValueError as error:
        _is_one_line(error)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (decoder, keys, token, settings)
}
SEEDS = {
    "decoder": b'{"layers":[{"blob":"sha256:%s","annotations":{"diffID":"sha256:%s","size":1,'
    b'"createdAt":"2024-01-01T00:00:00.123456789Z"},"parent":-1}],"records":[{"digest":"a"},'
    b'{"digest":"b","layers":[{"layer":0,"createdAt":"2024-01-01T00:00:00Z"}],"chains":'
    b'[{"layers":[0,0]}],"inputs":[[{"link":0,"selector":"x"}]]}]}' % (b"0" * 64, b"1" * 64),
    "keys": b"buildkit-1-49c8f7d5-sig#6",
    "token": b'{"ac":"[{\\"Scope\\":\\"refs/heads/main\\",\\"Permission\\":3}]"}',
    "settings": b'grace = "24h"\nscopes = ["a"]\n[serve]\ninterval = "6h"\n',
}


def _is_one_line(error: Exception) -> None:
    if len(str(error).splitlines()) > 1:
        raise AssertionError(f"more than a line: {error}")


def main() -> None:
    """Fuzz one target until libFuzzer's options end it."""
    atheris: Any = import_module("atheris")

    name, *options = sys.argv[1:]
    for function in _functions():
        atheris.instrument_func(function)
    with tempfile.TemporaryDirectory() as corpus:
        (Path(corpus) / "seed").write_bytes(SEEDS[name])
        arguments = [sys.argv[0], f"-max_len={_MOST}", *options, corpus]
        atheris.Setup(arguments, TARGETS[name])
        atheris.Fuzz()


def _functions() -> Iterator[FunctionType]:
    """Return every function of ours: new ways through them are what the fuzzer looks for."""
    for name in sorted(name for name in sys.modules if name.startswith("maintainer")):
        for thing in list(vars(sys.modules[name]).values()):
            inside = vars(thing).values() if isinstance(thing, type) else [thing]
            for function in inside:
                if isinstance(function, FunctionType) and function.__module__ == name:
                    yield function


if __name__ == "__main__":
    main()
