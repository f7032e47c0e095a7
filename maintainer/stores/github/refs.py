"""Which refs of a repository are closed: pull requests that are closed, and deleted branches and
tags. Only positive evidence counts.

Source: https://docs.github.com/rest/pulls/pulls and https://docs.github.com/rest/git/refs
"""

import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Literal, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from maintainer.cacheconfig import Ref
from maintainer.errors import BudgetExhaustedError, StoreError
from maintainer.model.reason import (
    ClosedRef,
    ClosedRefsDeferred,
    ClosedRefsUnknown,
    PullRequestClosed,
    RefDeleted,
)
from maintainer.stores.github.credentials import forget_token
from maintainer.stores.github.keyed import MAX_NAME_LENGTH, PAGE, ClosedRefs, MayAsk
from maintainer.stores.http.answers import Answer, malformed, parse, refused, to_utc

_T = TypeVar("_T")

MAX_REFS = 200
"""At most this many refs are asked for one by one; the others in later runs."""
_FEW = 5
"""More pull requests than this are looked for in a list first."""
_LAST_UPDATED = f"pulls?state=all&sort=updated&direction=desc&per_page={PAGE}"

_PULL = re.compile(r"refs/pull/([1-9][0-9]{0,9})/merge", re.ASCII)
_HEADS, _TAGS = "refs/heads/", "refs/tags/"
_NEVER_IN_A_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{|/\.|\.lock(/|$)|[/.]$|^[/.]")
"""Git allows none of these in the name of a branch or a tag."""

_Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)]


class _Repository(msgspec.Struct, frozen=True):
    default_branch: Annotated[_Name, msgspec.Meta(min_length=1)]


class _Pull(msgspec.Struct, frozen=True):
    number: int
    state: Literal["open", "closed"]
    closed_at: datetime | None = None


class _GitRef(msgspec.Struct, frozen=True):
    ref: _Name


class _Message(msgspec.Struct, frozen=True):
    message: str


class Api(Protocol):
    """What is asked about a repository through the REST API."""

    async def ask(self, path: str, parse_answer: Callable[[Answer], _T]) -> _T:
        """Send a GET request for what is at a path below the repository. Raises StoreError."""


class _UnknownPullError(StoreError):
    """A single pull request that the API does not show."""


class RefFinder:
    """Finds out which refs are closed. Whatever is in doubt counts as open."""

    def __init__(self, api: Api) -> None:
        """Ask about the repository of this API."""
        self._api = api
        self._default: str | None = None
        """The default branch, once it was found by the request by which others are looked for."""

    async def find(self, refs: Iterable[Ref], may_ask: MayAsk) -> ClosedRefs:
        """Return which of some refs are closed, and what could not be found out.

        They are asked for in this order, one request for each, as long as `may_ask` allows it.
        """
        findings = _Findings(may_ask)
        known = [ref for ref in refs if _number_of(ref) or _git_refs_of(ref)]
        pulls = [ref for ref in known if _number_of(ref)]
        others = [ref for ref in known if not _number_of(ref)]
        # At least half of the questions are about the others, if there are so many.
        await self._find_pulls(pulls, findings, most=MAX_REFS - min(len(others), MAX_REFS // 2))
        await findings.add(others, self._deleted)
        await findings.confirm_deleted(self._check_default_branch)
        return findings.result()

    async def closed_ref(self, ref: Ref) -> ClosedRef | None:
        """Ask again about a ref. Raises StoreError."""
        if _number_of(ref):
            return await self._closed_pull(ref)
        if deleted := await self._deleted(ref):
            await self._check_default_branch()
        return deleted

    async def check_permissions(self) -> None:
        """Ask for what shows whether the token may ask which refs are closed. Raises StoreError."""
        await self._deleted(Ref(f"{_HEADS}maintainer-doctor"))
        await self._api.ask(_LAST_UPDATED, _read_pulls)

    async def _find_pulls(self, refs: Sequence[Ref], findings: "_Findings", *, most: int) -> None:
        """Find closed pull requests; where there are many, most are among those changed last."""
        shown: dict[int, _Pull] | None = {} if len(refs) <= _FEW else None

        async def find(ref: Ref) -> ClosedRef | None:
            nonlocal shown
            if shown is None:
                pulls = await self._api.ask(_LAST_UPDATED, _read_pulls)
                shown = {pull.number: pull for pull in pulls}
            if pull := shown.get(_number_of(ref)):
                return _reason(pull)
            return await self._closed_pull(ref)

        await findings.add(refs, find, most=most)

    async def _closed_pull(self, ref: Ref) -> ClosedRef | None:
        number = _number_of(ref)
        pull = await self._api.ask(f"pulls/{number}", _read_pull)
        if pull.number != number:
            raise StoreError(f"GitHub's API shows another pull request than {number}")
        return _reason(pull)

    async def _deleted(self, ref: Ref) -> ClosedRef | None:
        """Return that a branch or a tag does not exist.

        A token that may not read the repository gets the same answer. So the default branch must be
        found before and after it, by the same request.
        """
        if self._default is None:
            name = await self._api.ask("", _read_default_branch)
            await self._check_default_branch(name)
            self._default = name
        for git_ref in _git_refs_of(ref):
            if git_ref == f"heads/{self._default}" or await self._exists(git_ref):
                return None
        return RefDeleted(ref)

    async def _check_default_branch(self, name: str | None = None) -> None:
        """Find the default branch, by default the one that was found before. Raises StoreError."""
        if not await self._exists(f"heads/{name or self._default}"):
            raise StoreError("GitHub's API shows no default branch")

    async def _exists(self, git_ref: str) -> bool:
        return await self._api.ask(f"git/ref/{quote(git_ref)}", _Existence(git_ref).read)


class _Findings:
    """What was found out of some refs so far."""

    def __init__(self, may_ask: MayAsk) -> None:
        self._may_ask = may_ask
        self._closed: dict[Ref, ClosedRef] = {}
        self._problems: list[str] = []
        self._asked = 0
        self._deferred = 0

    async def add(
        self,
        refs: Iterable[Ref],
        find: Callable[[Ref], Awaitable[ClosedRef | None]],
        *,
        most: int = MAX_REFS,
    ) -> None:
        """Find out whether refs are closed, until so many have been asked for in all.

        The first error ends it: others would be the same.
        """
        remaining = deque(refs)
        while remaining:
            if self._asked >= most or not await self._may_ask():
                break
            self._asked += 1
            try:
                reason = await find(remaining[0])
            except BudgetExhaustedError:
                break
            except _UnknownPullError as error:
                self._problems.append(str(error))
                reason = None
            except StoreError as error:
                self._problems += [str(error)] * len(remaining)
                return
            if reason:
                self._closed[remaining[0]] = reason
            remaining.popleft()
        self._deferred += len(remaining)

    async def confirm_deleted(self, check: Callable[[], Awaitable[None]]) -> None:
        """Drop that branches and tags do not exist if a check fails, or cannot be made."""
        deleted = [ref for ref, why in self._closed.items() if isinstance(why, RefDeleted)]
        if not deleted:
            return
        try:
            if await self._may_ask():
                await check()
                return
            self._deferred += len(deleted)
        except BudgetExhaustedError:
            self._deferred += len(deleted)
        except StoreError as error:
            self._problems += [str(error)] * len(deleted)
        for ref in deleted:
            del self._closed[ref]

    def result(self) -> ClosedRefs:
        """Return all of it, as a value."""
        notes: list[ClosedRefsUnknown | ClosedRefsDeferred] = []
        if self._problems:
            notes.append(ClosedRefsUnknown(len(self._problems), self._problems[0]))
        if self._deferred:
            notes.append(ClosedRefsDeferred(self._deferred))
        return ClosedRefs(self._closed, tuple(notes))


def _number_of(ref: Ref) -> int:
    """Return the number of the pull request of a ref; 0 if it has another form."""
    match = _PULL.fullmatch(ref)
    return int(match[1]) if match else 0


def _git_refs_of(ref: Ref) -> tuple[str, ...]:
    """Return what the ref of a branch or a tag may be in git; nothing for one of another form.

    The list of caches may say `refs/heads/refs/tags/v1` for the tag `v1`, or mean such a branch.
    """
    kind, slash, name = ref.removeprefix("refs/").partition("/")
    is_known = ref.startswith((_HEADS, _TAGS)) and slash and not _NEVER_IN_A_REF.search(name)
    if not is_known:
        return ()
    tag = name.removeprefix(_TAGS)
    if kind == "heads" and tag != name:
        return f"heads/{name}", f"tags/{tag}"
    return (f"{kind}/{name}",)


def _reason(pull: _Pull) -> ClosedRef | None:
    closed_at = to_utc(pull.closed_at)
    # A time that cannot be proves nothing; without one, the pull request is closed all the same.
    if pull.state != "closed" or (pull.closed_at and not closed_at):
        return None
    return PullRequestClosed(pull.number, closed_at)


def _read_default_branch(answer: Answer) -> str:
    _check(answer, "contents: read")
    return parse(answer, _Repository).default_branch


def _read_pull(answer: Answer) -> _Pull:
    if answer.status == HTTPStatus.NOT_FOUND:
        raise _UnknownPullError(
            f"GitHub's API does not show a pull request (HTTP 404); the token in "
            f"{answer.token_env} may need the permission `pull-requests: read`"
        )
    _check(answer, "pull-requests: read")
    return parse(answer, _Pull)


def _read_pulls(answer: Answer) -> list[_Pull]:
    _check(answer, "pull-requests: read")
    return parse(answer, list[_Pull])


class _Existence:
    """Reads whether a ref of git exists."""

    def __init__(self, git_ref: str) -> None:
        self._ref = f"refs/{git_ref}"

    def read(self, answer: Answer) -> bool:
        if answer.status == HTTPStatus.NOT_FOUND:
            parse(answer, _Message)  # A page of a proxy proves nothing.
            return False
        _check(answer, "contents: read")
        if parse(answer, _GitRef).ref != self._ref:
            raise malformed(answer, "it shows another ref")
        return True


def _check(answer: Answer, permission: str) -> None:
    if answer.status == HTTPStatus.UNAUTHORIZED:
        forget_token(answer)
        raise StoreError(
            f"GitHub's API answers HTTP 401: {answer.token_env} holds no token that it knows, or "
            "one that has expired"
        )
    if answer.status in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
        raise StoreError(
            f"GitHub's API answers HTTP {answer.status}: the token in {answer.token_env} needs the "
            f"permission `{permission}`"
        )
    if answer.status != HTTPStatus.OK:
        raise refused(answer)
