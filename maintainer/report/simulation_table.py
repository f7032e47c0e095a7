"""The answer to `maintainer simulate`, on a terminal."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from maintainer.report.simulation import Simulation, caches_table, format_simulation
from maintainer.report.terminal import titled
from maintainer.sanitize import loggable


def render_simulation(simulation: Simulation) -> Group:
    """Format what builds would have found."""
    return Group(*_parts(simulation))


def _parts(simulation: Simulation) -> Iterator[RenderableType]:
    yield Text(f"{loggable(simulation.target)}: what would be kept?", style="bold")
    for line in format_simulation(simulation):
        yield Text(line)
    yield Text()
    yield from titled(caches_table(simulation))
    for note in simulation.notes:
        yield Text(note, style="dim")
