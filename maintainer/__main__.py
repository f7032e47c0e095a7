"""The command `maintainer`: Ctrl-C ends it without a traceback, even during the start."""

import gc
import os
import sys

from maintainer.signals import RELOAD, end_first_process, hold

_INTERRUPTED = 130
NEW_OBJECTS = 10_000
"""How many are made between two searches for garbage. Imports leave none, and a search after every
700 objects, as by default, takes a tenth of a start."""


def main() -> None:
    """Run the command line."""
    gc.set_threshold(NEW_OBJECTS)
    _open_closed_streams()
    end_first_process()
    try:
        if sys.argv[1:2] in (["serve"], ["worker"]) and "--once" not in sys.argv:
            # They handle it once they have started.
            hold(RELOAD)
        # This import takes most of the start, so Ctrl-C during it must be handled too.
        from maintainer.cli.app import main as run  # noqa: PLC0415

        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _open_closed_streams() -> None:
    """Discard what is printed where nobody listens, as after `>&-`: Python has no stream then."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


if __name__ == "__main__":
    main()
