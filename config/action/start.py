"""Starts maintainer from what is unpacked beside this file. `python -I` adds no other folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))

from maintainer.__main__ import main

main()
