"""All errors that users see: one line that says what happened, to what, and what to do."""

from typing import TYPE_CHECKING, ClassVar

from maintainer.sanitize import printable

if TYPE_CHECKING:  # The command line needs the errors before it needs any value.
    from datetime import timedelta

    from maintainer.model.doubt import Cause
    from maintainer.model.reason import Exhausted


def how_to_install(extra: str) -> str:
    """Return how to add optional dependencies, of an installed package and of a clone."""
    return (
        f"pip install 'buildkit-maintainer[{extra}]', or in a clone "
        f".venv/bin/uv pip install -e '.[{extra}]'"
    )


class MaintainerError(Exception):
    """An error that the user reads in one line."""

    exit_status: ClassVar[int] = 1


class UsageError(MaintainerError):
    """The command line or the configuration is wrong."""

    exit_status = 2


class SettingError(UsageError):
    """The value of a setting is wrong."""

    def __init__(self, key: str, problem: str, *, name: str = "") -> None:
        """Take the key, and what people call it: an option of the command line has another name."""
        self.key = key
        self.problem = problem
        # A problem that is a predicate goes on where the name ends: `--grace is not a valid …`.
        colon = "" if problem.startswith(("is ", "must ")) else ":"
        super().__init__(f"{name or f'setting {key}'}{colon} {problem}")


class AddressBusyError(MaintainerError):
    """An address is in use; it may be available later."""


class InvalidIndexError(MaintainerError):
    """An index breaks a rule, so importers refuse all of it."""

    def __init__(self, where: str, rule: str) -> None:
        """Take the place (`layer 3`, `record 7, input 0`, `index`) and the broken rule."""
        self.where = where
        self.rule = rule
        super().__init__(f"{where}: {rule}")


class StoreError(MaintainerError):
    """The store could not be reached, or sent a malformed response."""


class UnknownCacheError(StoreError):
    """There is no such cache, or the token may not know of it: its name may be misspelled."""


class UnreadableError(StoreError):
    """Something exists and could not be read, for a reason that may be permanent."""

    def __init__(self, cause: "Cause", problem: str) -> None:
        """Take the cause, as a value and as a sentence."""
        self.cause = cause
        super().__init__(problem)


class TokenRefusedError(StoreError):
    """The service does not know the token, so it will refuse whatever else it is asked."""


class BudgetExhaustedError(StoreError):
    """The run has no requests left; the rest is deferred to the next run."""

    def __init__(self, reason: "Exhausted") -> None:
        """Take the part of the budget that is exhausted."""
        self.reason = reason
        super().__init__("the budget of the run is exhausted")


class UnfinishedError(StoreError):
    """The budget ended a step whose partial result is useless."""

    def __init__(self, problem: str, reason: "Exhausted") -> None:
        """Take the step that could not be finished, and the exhausted part of the budget."""
        self.reason = reason
        super().__init__(problem)


class ChangedError(StoreError):
    """The entry to delete has changed since the run saw it, so it is kept."""


class RefusedError(StoreError):
    """The store refuses a request, so this has changed nothing."""


class EntryError(RefusedError):
    """This entry cannot be deleted; others may be, and none depends on it."""


class AlreadyExistsError(StoreError):
    """Somebody else has reserved or written this key."""


class WriteRefusedError(StoreError):
    """The token is not allowed to write; that depends on the trigger of the workflow."""

    def __init__(self, key: str, answer: str) -> None:
        """Take the key that was refused, and the response."""
        super().__init__(
            f"the cache service refused to write {printable(key)} ({printable(answer)}): run on "
            "push, schedule, workflow_dispatch, repository_dispatch or delete, whose tokens may "
            "write"
        )


class MassDeletionError(MaintainerError):
    """Most known entries are gone, and neither the quota nor our own deletions explain it."""

    def __init__(self, what: str, assumed: str = "") -> None:
        """Take how much was found, and the quota, if it is assumed."""
        smaller = f"; if its quota is less than {assumed}, which is assumed, set `quota`"
        super().__init__(
            f"{what}, in two listings: probably an outage, not an eviction, so nothing is "
            "written or deleted; if the cache was emptied on purpose, run with --accept-loss"
            f"{smaller if assumed else ''}"
        )


class DatabaseError(MaintainerError):
    """The database could not be read or written."""


class ClockError(DatabaseError):
    """The clock of this machine is wrong: grace periods would be too short."""

    def __init__(self, ahead: "timedelta") -> None:
        """Take how much it is ahead of the database's, which all machines share."""
        seconds = ahead.total_seconds()
        direction = "ahead of" if seconds > 0 else "behind"
        super().__init__(
            f"this machine's clock is {abs(seconds):,.0f} s {direction} the database's: "
            "set it right, because grace periods are counted by both"
        )


class LeaseLostError(DatabaseError):
    """Another run works on the target now: this one must not change anything more."""

    def __init__(self, target: str) -> None:
        """Take the name of the target, or of its database."""
        super().__init__(
            f"another run has taken {printable(target)} over, because this one did not answer for "
            "too long: it changes nothing more"
        )


class NoReportError(DatabaseError):
    """There is no report of such a run."""
