"""Fault plans: which requests go wrong, and how.

A plan is a file, TOML or JSON, with a list of faults:

    seed = 7

    [[faults]]
    request = "look-up"
    kind = "status"
    status = 429
    retry_after = 1
    nth = 2

The first fault that hits a request is injected.
"""

import random
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from maintainer.emulator.requests import Kind, Request
from maintainer.errors import UsageError

FaultKind = Literal[
    # Not carried out:
    "status",  # answered with `status`
    "reset",  # the connection is reset without an answer
    "stall",  # no answer for `seconds`, or until the client gives up; then the connection is reset
    "html",  # a page in place of the answer, with status 200
    "wrong-shape",  # `body`, with status 200: JSON of another shape
    "miss",  # a look-up that finds nothing
    "expired",  # a signed URL that is not valid any more
    "no-content",  # a download of an entry whose content is lost
    # Carried out, but the client is not informed:
    "stored-but-failed",  # answered with `status`
    "lost-answer",  # the connection is reset
    "gone",  # answered with 404, as if another client had deleted it
    # Carried out, with another answer:
    "truncated",  # half of the content, then the connection is closed
    "repeat",  # a list page that shows its first entry in place of its last
    "omit",  # a list page without its first entry
    "total",  # a list page whose total_count is off by `delta`
    "headers",  # with more headers
]

_Count = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
_Header = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]+$")]
_Text = Annotated[str, msgspec.Meta(pattern=r"^[ -~]*$")]


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One way for requests to fail. Without `nth`, `every` or `probability`, all of them do."""

    kind: FaultKind
    request: Kind | Literal["any"] = "any"
    key: str | None = None
    """Only requests whose key is known and starts with this."""
    nth: _Count | None = None
    """The first request that is hit; `times`, by default 1, of those from there on."""
    every: _Count | None = None
    """Each second, third, … request."""
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    times: _Count | None = None
    """The maximum number of requests that are hit."""
    status: int = 500
    headers: dict[_Header, _Text] = {}
    retry_after: Annotated[int, msgspec.Meta(ge=0, le=10**9)] | _Text | None = None
    """The header: seconds, or a date."""
    rate_limit_reset: Annotated[int, msgspec.Meta(ge=0, le=10**6)] | None = None
    """Report that no request is left until so many seconds later, by the real clock."""
    seconds: Annotated[float, msgspec.Meta(ge=0, le=86_400)] | None = None
    body: str = '{"unexpected": [null]}'
    delta: int = 1

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.nth, self.every, self.probability)) > 1:
            raise ValueError("only one of nth, every and probability can be given")
        if self.status not in set(HTTPStatus) or self.status < HTTPStatus.BAD_REQUEST:
            raise ValueError(f"{self.status} is not the HTTP status of an error")


class FaultPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All faults of one emulator."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0
    """The seed of the probabilities."""


NO_FAULTS = FaultPlan()


class Chooser:
    """Chooses for each request in turn the fault that hits it."""

    def __init__(self, plan: FaultPlan) -> None:
        self._faults = plan.faults
        self._random = random.Random(plan.seed)  # noqa: S311 - reproducible
        self._seen = [0] * len(plan.faults)
        self._hits = [0] * len(plan.faults)

    def choose(self, request: Request) -> Fault | None:
        """Return the fault that hits this request."""
        chosen = None
        for number, fault in enumerate(self._faults):
            if not _is_about(fault, request):
                continue
            self._seen[number] += 1
            if self._is_due(fault, number) and chosen is None:
                self._hits[number] += 1
                chosen = fault
        return chosen

    def _is_due(self, fault: Fault, number: int) -> bool:
        due = True
        times = fault.times
        if fault.probability is not None:
            due = self._random.random() < fault.probability
        elif fault.every is not None:
            due = self._seen[number] % fault.every == 0
        elif fault.nth is not None:
            due = self._seen[number] >= fault.nth
            times = times or 1
        return due and (times is None or self._hits[number] < times)


def _is_about(fault: Fault, request: Request) -> bool:
    if fault.request not in ("any", request.kind):
        return False
    return fault.key is None or (request.key or "").startswith(fault.key)


def load_faults(path: Path) -> FaultPlan:
    """Read a plan from a file. Raises UsageError, in one line, if it is invalid."""
    try:
        content = path.read_bytes()
        if path.suffix == ".json":
            return msgspec.json.decode(content, type=FaultPlan)
        return msgspec.toml.decode(content, type=FaultPlan)
    except OSError as error:
        raise UsageError(f"the fault plan {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        message = " ".join(str(error).split())
        raise UsageError(f"the fault plan {path} is not valid: {message}") from None
