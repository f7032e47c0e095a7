"""Imports the modules that a file lists, as far as there are such modules, and nothing more.

python -m benchmarks.floors.imports FILE
"""

import importlib
import sys
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":
    for name in Path(sys.argv[1]).read_text().split():
        with suppress(ImportError):
            importlib.import_module(name)
