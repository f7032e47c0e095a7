"""The values of options and arguments, without Pydantic where there is nothing to check.

Typer asks Pydantic about each value, even about one that is unset or text, and importing Pydantic
takes longer than everything else that a usage error needs, and a quarter of a report.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from typer.core import TyperArgument, TyperOption

from maintainer.errors import UsageError
from maintainer.sanitize import printable

if TYPE_CHECKING:
    # Typer has its own Click inside, and names these types nowhere else.
    from typer._click import Context, Parameter


def check_only_what_needs_it(params: "Sequence[Parameter]") -> None:
    """Let Typer check only those values of parameters that their type does not vouch for.

    A version of Typer that has no such place to do it checks all of them.
    """
    for param in params:
        if not isinstance(param, TyperOption | TyperArgument):
            continue
        if not (hasattr(param, "type_descriptor") and hasattr(param, "get_runtime_param")):
            continue
        annotation = param.type_descriptor.annotation
        if annotation is bool and isinstance(param, TyperOption):
            param.default = param.default or False  # Typer's own switches are unset by default.
        elif not isinstance(getattr(param.get_runtime_param, "__self__", None), _Check):
            changed: Any = param
            changed.get_runtime_param = _Check(annotation, param.get_runtime_param).get


def refuse_lost_values(params: "Sequence[Parameter]", arguments: Sequence[str]) -> None:
    """Raise UsageError if an option lacks its value, and would take the next option for it.

    In `gc --merged-tag $TAG --dry-run` a variable that is empty would make a real run of a dry one.
    """
    with_value = {
        name
        for param in params
        if isinstance(param, TyperOption) and not param.is_flag
        for name in param.opts
    }
    rest = iter(arguments)
    for one in rest:
        if one == "--":
            return
        if one not in with_value:
            continue
        value = next(rest, "")
        if len(value) > 1 and value.startswith("-"):
            joined = f"{one}{'=' if one.startswith('--') else ''}{printable(value)}"
            raise UsageError(
                f"{one} has no value: {printable(value)} follows it. A value that begins with - is "
                f"written {joined}"
            )


class _Check:
    """What Typer calls to check a value."""

    def __init__(self, annotation: object, find_check: Callable[[], Any]) -> None:
        self._annotation = annotation
        self._find_check = find_check

    def get(self) -> "_Check":
        """Return what checks."""
        return self

    def coerce(self, value: object, param: "Parameter", ctx: "Context") -> object:
        """Return the value of a parameter. Raises BadParameter."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if isinstance(self._annotation, type) and isinstance(value, self._annotation):
            return value
        return self._find_check().coerce(value, param=param, ctx=ctx)
