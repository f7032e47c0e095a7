"""The command `maintainer`: Ctrl-C ends it without a traceback, while it is still starting too."""

import signal
import sys

_INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    try:
        if sys.argv[1:2] == ["serve"] and "--once" not in sys.argv:
            # It says that the configuration has changed; it must not end what cannot hear it yet.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        # Most of the time that a start takes: it belongs inside.
        from maintainer.cli import main as run  # noqa: PLC0415

        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
