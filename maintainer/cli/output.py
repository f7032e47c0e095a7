"""Results on stdout: JSON for machines, and what Rich lays out for people."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType


def print_json(value: object) -> None:
    """Print one JSON document."""
    from maintainer.report.json import to_json

    sys.stdout.write(f"{to_json(value)}\n")


def print_layout(layout: "RenderableType", *, soft_wrap: bool = False) -> None:
    """Print what people read; with `soft_wrap` the terminal wraps it."""
    from maintainer.console import stdout

    stdout().print(layout, soft_wrap=soft_wrap)
