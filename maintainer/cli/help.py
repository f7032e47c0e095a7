"""The help of every command: options in groups, examples, variables and exit statuses.

It is formatted without Rich, which takes longer to import than everything else that help needs.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

from maintainer.cli.values import check_only_what_needs_it, refuse_lost_values

if TYPE_CHECKING:
    # Typer has its own Click inside, and names these types nowhere else.
    from typer._click import Context, HelpFormatter, Parameter

Rows = tuple[tuple[str, str], ...]

SET_UP, MAINTAIN, LOOK = "Set up", "Maintain", "See what is stored, and why"
TRY, DATABASE = "Try it out", "Its own data"
"""Groups of commands."""
WHAT, WHERE, HOW_MUCH, OUTPUT = "What to do", "Which cache", "How much at most", "Output"
"""Groups of options."""

_RANGE = re.compile(r" *\[x[<>]=?\d+\]|; x[<>]=?\d+(?=\])")
_TYPE = re.compile(r" <[a-z\[\] ]+>$")
"""The type of a value, in Python's words, after its name."""
_EXAMPLE_WIDTH, _WIDTH = 46, 26
_WHOLE = 200
"""Characters of a sentence in a list of commands: none is cut off."""
_ENVIRONMENT: Rows = (
    ("GITHUB_TOKEN", "Lists and deletes entries of the Actions cache; `gh auth token` prints one."),
    ("GITHUB_REPOSITORY", "The repository: OWNER/NAME."),
    (
        "ACTIONS_RUNTIME_TOKEN, ACTIONS_RESULTS_URL",
        "Read and write indexes. They exist only inside workflows; the Action passes them.",
    ),
    ("MAINTAINER_CONFIG", "A TOML file of settings."),
    ("MAINTAINER_GRACE, …", "Every setting that is in no table: see `maintainer config show`."),
)
_STATUSES: Rows = (
    ("0", "Done."),
    ("1", "Failed, or a problem was found: the last lines say what."),
    ("2", "The command line or the configuration is invalid; nothing was done."),
    ("3", "A repair (--repair) is done, and was needed."),
    ("130, 143", "Interrupted by Ctrl-C or SIGTERM, between two steps."),
)
EXAMPLES: Mapping[str, Rows] = {
    "": (
        ("maintainer demo", "see what a run does, without an account"),
        ("maintainer usage -R octo/app", "see what takes the space of a cache"),
        ("maintainer init", "write a workflow that maintains a cache"),
    ),
    "gc": (
        ("maintainer gc -n", "print the plan, and change nothing"),
        ("maintainer gc --store local:build-cache", "a directory of `type=local`"),
        ("maintainer gc --no-sweep --deadline 5m", "after a build: merge, delete nothing"),
        ("maintainer gc --json > run.json", "for programs"),
    ),
    "report": (
        ("maintainer report --html report.html --open", "in a browser"),
        ("maintainer report --run 12 --json", "an earlier one, for programs"),
    ),
    "why": (("maintainer why sha256:9dbaf5ce4235", "a layer, by the beginning of its digest"),),
    "tree": (("maintainer tree api", "the layers of scope `api`"),),
    "diff": (("maintainer diff --last", "the last two runs"),),
    "usage": (
        ("maintainer usage", "the repository of GITHUB_REPOSITORY"),
        ("maintainer usage -R octo/app --json", "another one, for programs"),
    ),
    "simulate": (("maintainer simulate --quota 5GB,10GB,20GB", "would another limit pay off?"),),
    "forget": (("maintainer forget -n old-image", "what a scope that is no longer built frees"),),
    "doctor": (
        ("maintainer doctor", "before the first run, or after one that failed"),
        ("maintainer doctor --store local:build-cache", "a directory"),
    ),
    "config show": (
        ("maintainer config show", "what a run would use"),
        ("maintainer config show > maintainer.toml", "a file to change"),
    ),
    "serve": (
        ("maintainer serve --config maintainer.toml", "until it is stopped; SIGHUP reloads"),
        ("maintainer serve --once", "what is due, for a timer of your own"),
    ),
    "targets": (("maintainer targets --config maintainer.toml", "what `serve` would maintain"),),
    "emulator": (
        ("maintainer emulator --history -- maintainer gc", "a run on the builds of the demo"),
        ("maintainer emulator > emulator.env &", "for several commands: print the variables"),
    ),
}
"""By the names of commands; the empty name is the program itself."""


def _grouped(params: Iterable[Any], ctx: "Context") -> dict[str, list[tuple[str, str]]]:
    """Return the rows of options by group; those without a group come last."""
    panels: dict[str, list[tuple[str, str]]] = {}
    others: list[tuple[str, str]] = []
    for param in params:
        record = param.get_help_record(ctx)
        if record is None:
            continue
        row = (_TYPE.sub("", record[0]), _RANGE.sub("", record[1]))
        panel = getattr(param, "rich_help_panel", None)
        if panel is None and param.param_type_name == "argument":
            panel = "Arguments"
        (panels.setdefault(panel, []) if panel else others).append(row)
    return panels | ({"Options": others} if others else {})


def _write(formatter: "HelpFormatter", title: str, rows: Iterable[tuple[str, str]]) -> None:
    if rows := list(rows):
        with formatter.section(title):
            formatter.write_dl(rows, col_max=_EXAMPLE_WIDTH if title == "Examples" else _WIDTH)


def _find_name(ctx: "Context") -> str:
    """Return the names of a command and its groups, however the program is called."""
    names = []
    while ctx.parent is not None:
        names.append(ctx.info_name or "")
        ctx = ctx.parent
    return " ".join(reversed(names))


def _write_epilog(ctx: "Context", formatter: "HelpFormatter") -> None:
    name = _find_name(ctx)
    _write(formatter, "Examples", EXAMPLES.get(name, ()))
    if not name:
        _write(formatter, "Environment", _ENVIRONMENT)
    if name in ("", "gc"):
        _write(formatter, "Exit status", _STATUSES)


class Command(TyperCommand):
    """A command whose help has groups and examples."""

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        """Parse the arguments. Raises UsageError if the value of an option is lost."""
        refuse_lost_values(self.get_params(ctx), args)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: "Context") -> "list[Parameter]":
        """Return the options and arguments, and Typer's own options."""
        params = super().get_params(ctx)
        check_only_what_needs_it(params)
        return params

    def format_options(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Format the options, in groups."""
        for panel, rows in _grouped(self.get_params(ctx), ctx).items():
            _write(formatter, panel, rows)

    def format_epilog(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Format what follows the options."""
        _write_epilog(ctx, formatter)


class Group(TyperGroup):
    """A group of commands whose help lists them by what they are for."""

    def get_params(self, ctx: "Context") -> "list[Parameter]":
        """Return the options, and Typer's own."""
        params = super().get_params(ctx)
        check_only_what_needs_it(params)
        return params

    def format_options(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Format the commands, then the options."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            row = (name, command.get_short_help_str(_WHOLE).rstrip("."))
            panels.setdefault(command.rich_help_panel or "Commands", []).append(row)
        for panel, rows in (panels | _grouped(self.get_params(ctx), ctx)).items():
            _write(formatter, panel, rows)

    def format_epilog(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Format what follows the options."""
        _write_epilog(ctx, formatter)
