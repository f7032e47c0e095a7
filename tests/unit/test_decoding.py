"""Decoding in threads."""

import subprocess
import sys

_TWO_THREADS = """
import sys, threading, msgspec
from maintainer.decoding import decode_json

sys.setswitchinterval(1e-6)
for _ in range(300):
    inner = msgspec.defstruct("Inner", [(f"i{n}", int | None, None) for n in range(10)])
    outer = msgspec.defstruct("Outer", [(f"o{n}", list[inner] | None, None) for n in range(20)])
    content = msgspec.json.encode({f"o{n}": [{"i1": 1, "i9": 2}] for n in range(20)})
    at_once = threading.Barrier(2)

    def decode():
        at_once.wait()
        assert decode_json(content, outer).o19[0].i9 == 2

    threads = [threading.Thread(target=decode) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_threads_that_first_decode_into_a_class_at_once_do_not_crash_the_process() -> None:
    assert subprocess.run([sys.executable, "-c", _TWO_THREADS], check=False).returncode == 0
