"""The command `maintainer`: Ctrl-C ends it without a traceback, while it is still starting too."""

import sys

_INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    try:
        # Most of the time that a start takes: it belongs inside.
        from maintainer.cli import main as run  # noqa: PLC0415

        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
