"""The options that several commands have, and what is read from them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.models import OptionInfo

from maintainer.cli.help import OUTPUT
from maintainer.database_url import DEFAULT, check_database, is_configured
from maintainer.errors import SettingError, UsageError
from maintainer.sanitize import printable

if TYPE_CHECKING:
    from maintainer.settings import Settings

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="A TOML file of settings; or MAINTAINER_CONFIG.", metavar="FILE"),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        help="The graph: a file, or the URL of a PostgreSQL database; or MAINTAINER_DATABASE. "
        "[default: maintainer.db]",
        metavar="FILE",
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        help="Only this cache, as `maintainer runs` names it, or this target of the service.",
        metavar="TARGET",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout.", rich_help_panel=OUTPUT)
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel=OUTPUT)
]


def verbose_option(prints: str = "") -> OptionInfo:
    """Return the option; `prints` is what it has the command print, beside log lines."""
    said = (
        f"{prints}, and more log lines on stderr." if prints else "Print more log lines on stderr."
    )
    option: OptionInfo = typer.Option("--verbose", "-v", help=said, rich_help_panel=OUTPUT)
    return option


VerboseOption = Annotated[bool, verbose_option()]
LogFormatOption = Annotated[
    Literal["text", "json"] | None,
    typer.Option(
        "--log-format",
        help="The format of log lines on stderr, for people or for machines. [default: text]",
        rich_help_panel=OUTPUT,
    ),
]


_OPTIONS = {
    "log_format": "--log-format",
    "max_requests": "--max-requests",
    "merged_scope": "--merged-scope",
    "merged_tag": "--merged-tag",
    "scopes": "--scope",
}
"""Those that have another name than their setting."""


def read_settings(config: Path | None, database: str | None, **more: Any) -> "Settings":  # noqa: ANN401
    """Read the settings; an option that is None leaves its setting as it is.

    Raises UsageError, in one line that names the key.
    """
    from maintainer.settings import load_settings, name_of
    from maintainer.stores.kinds import check, refuse_unused

    given = {"database": database} | more
    overrides = {key: value for key, value in given.items() if value is not None}
    try:
        settings = load_settings(config, overrides)
        check(settings)
        refuse_unused(settings.store, overrides)
    except SettingError as error:
        table, _, key = error.key.rpartition(".")
        if (table or key) in overrides:
            name = _OPTIONS.get(key, f"--{key}")
        elif error.key == "store":
            name = name_of(error.key, config)
        else:
            raise
        raise SettingError(error.key, error.problem, name=name) from None
    return settings


def find_database(config: Path | None, database: str | None) -> str:
    """Return the URL of the database.

    The settings take longer to read than a report, and so they are read, and checked, only if
    something other than this option is configured. Raises UsageError.
    """
    if config is not None or is_configured():
        return read_settings(config, database).database
    try:
        return check_database(DEFAULT if database is None else database)
    except ValueError as error:
        raise SettingError("database", str(error), name="--database") from None


def read_database(argument: str, place: str) -> str:
    """Return the URL of a database, given as a URL or a path. Raises UsageError."""
    try:
        return check_database(place)
    except ValueError as error:
        raise UsageError(f"{argument} {error}") from None


def read_size(option: str, text: str) -> int:
    """Read the value of an option such as `--quota 10GB`. Raises UsageError."""
    from maintainer.settings import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(f"{option}: {printable(text)} {error}") from None


def read_sizes(option: str, text: str) -> list[int]:
    """Read the value of an option such as `--quota 5GB,10GB`. Raises UsageError."""
    from maintainer.settings import parse_sizes

    try:
        return parse_sizes(text)
    except ValueError as error:
        raise UsageError(f"{option}: {printable(text)} {error}") from None


def read_duration(option: str, text: str | None) -> object:
    """Read the value of an option such as `--grace`. Raises UsageError."""
    from maintainer.settings import parse_duration

    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {printable(text or '')} {error}") from None
