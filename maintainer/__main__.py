"""The command `maintainer`: Ctrl-C ends it without a traceback, even during the start."""

import gc
import sys

from maintainer.signals import RELOAD, hold

_INTERRUPTED = 130
NEW_OBJECTS = 10_000
"""How many are made between two searches for garbage. Imports leave none, and a search after every
700 objects, as by default, takes a tenth of a start."""


def main() -> None:
    """Run the command line."""
    gc.set_threshold(NEW_OBJECTS)
    try:
        if sys.argv[1:2] == ["serve"] and "--once" not in sys.argv:
            # The service handles it once it has started.
            hold(RELOAD)
        # This import takes most of the start, so Ctrl-C during it must be handled too.
        from maintainer.cli.app import main as run  # noqa: PLC0415

        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
