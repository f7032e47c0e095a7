"""`maintainer demo`: a normal run on a recorded history, over HTTP on loopback."""

from maintainer.demo.command import run_demo
from maintainer.demo.history import RecordedEntry, load_history, seed

__all__ = ["RecordedEntry", "load_history", "run_demo", "seed"]
