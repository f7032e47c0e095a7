"""Check what a run needs of GitHub: tokens, permissions, URLs, the clock and limits.

It changes nothing. Whether the token may delete is found out by a request to delete entry number 0,
which no repository has.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta

from maintainer.cacheconfig import Ref
from maintainer.errors import MaintainerError, UsageError
from maintainer.model.finding import Finding, Level, note, ok, problem
from maintainer.sanitize import printable
from maintainer.settings import GitHubSettings, Settings
from maintainer.stores.github.client import ActionsCacheClient, open_client
from maintainer.stores.github.token import read_expiry
from maintainer.stores.http.retry import RetryPolicy

_NO_ENTRY = 0
_NO_KEY = "maintainer-doctor"
_MAX_SKEW = timedelta(minutes=5)
_FEW_REQUESTS = 100
_SOON = timedelta(minutes=30)
_ONE_ATTEMPT = RetryPolicy(attempts=1)


async def diagnose(
    github: GitHubSettings, settings: Settings, now: Callable[[], datetime]
) -> AsyncIterator[Finding]:
    """Check a workflow's environment, or a target of the configuration."""
    for finding in (_rest_token(github), _repository(github), _runtime_token(github, now())):
        if finding:
            yield finding
    try:
        async with open_client(github, _ONE_ATTEMPT) as client:
            async for finding in _ask(client, github, settings, now):
                yield finding
    except UsageError as error:
        if github.token or github.app or github.runtime_token:
            yield problem("environment", str(error))


def _rest_token(github: GitHubSettings) -> Finding | None:
    if github.token or github.app:
        return None  # The requests show what it is good for.
    return problem(
        "token",
        f"{github.token_env} is not set, so entries can be neither listed nor deleted",
        f"in a shell: export {github.token_env}=$(gh auth token); in a workflow, the Action "
        "passes its own",
    )


def _repository(github: GitHubSettings) -> Finding | None:
    if github.repository:
        return None
    return problem("repository", "GITHUB_REPOSITORY is not set", "set it to OWNER/NAME")


def _runtime_token(github: GitHubSettings, now: datetime) -> Finding | None:
    if not github.runtime_token:
        return note(
            "runtime token",
            f"{github.runtime_token_env} is not set, so indexes can be neither read nor written",
            "it exists only inside workflows: run the Action there (`maintainer init`)",
        )
    if not (github.results_url or github.cache_url):
        return problem(
            "URLs",
            "neither ACTIONS_RESULTS_URL nor ACTIONS_CACHE_URL is set",
            "pass them to this step, together with the runtime token",
        )
    expires_at = read_expiry(github.runtime_token.get_secret_value())
    if expires_at is None or expires_at > now + _SOON:
        return None
    when = f"{expires_at:%Y-%m-%d %H:%M} UTC"
    if expires_at <= now:
        return problem("runtime token", f"it expired at {when}", "use the token of a new workflow")
    return note("runtime token", f"it expires at {when}", "a run must end before that")


async def _ask(
    client: ActionsCacheClient,
    github: GitHubSettings,
    settings: Settings,
    now: Callable[[], datetime],
) -> AsyncIterator[Finding]:
    if client.reads:
        yield _writable(client.access.writable)
        yield await _try("cache service", _look_up(client))
    if not client.lists:
        if (github.token or github.app) and github.repository:
            yield problem(
                "URLs",
                "the REST API is not that of the cache service, so it is not used",
                "set GITHUB_API_URL to the API of the same host",
            )
        return
    listed = await _try("list", _list(client, github))
    yield listed
    if skew := _clock(client, now()):
        yield skew
    if listed.level != Level.OK:
        return
    yield await _try("deletion", _delete(client, github))
    yield await _limits(client)
    yield _rate_limit(client)
    if settings.room.closed_refs:
        yield await _try("closed refs", _closed_refs(client))


async def _try(subject: str, check: Awaitable[Finding]) -> Finding:
    """Return the result of a check; an error is a problem, which says what to do."""
    try:
        return await check
    except MaintainerError as error:
        return problem(subject, str(error))


def _writable(refs: frozenset[Ref]) -> Finding:
    if refs:
        names = ", ".join(printable(ref) for ref in sorted(refs))
        return ok("runtime token", f"it may write in {names}")
    return problem(
        "runtime token",
        "it may write in no ref",
        "run on push, schedule, workflow_dispatch, repository_dispatch or delete",
    )


async def _look_up(client: ActionsCacheClient) -> Finding:
    await client.look_up(_NO_KEY)
    return ok("cache service", "it answers, and accepts the runtime token")


async def _list(client: ActionsCacheClient, github: GitHubSettings) -> Finding:
    await client.newest_indexes()
    return ok("list", f"{github.token_env} may list the entries of {github.repository}")


async def _delete(client: ActionsCacheClient, github: GitHubSettings) -> Finding:
    await client.delete(_NO_ENTRY)
    return ok("deletion", f"{github.token_env} may delete entries")


def _clock(client: ActionsCacheClient, now: datetime) -> Finding | None:
    """Compare this machine's clock with GitHub's: grace periods mix the times of both."""
    theirs = client.requests.answered_at
    if theirs is None:
        return None
    skew = now - theirs
    if abs(skew) <= _MAX_SKEW:
        return ok("clock", "it agrees with GitHub's")
    direction = "ahead of" if skew > timedelta(0) else "behind"
    return problem(
        "clock",
        f"it is {abs(skew) // timedelta(minutes=1)} minutes {direction} GitHub's",
        "set it: grace periods are measured with it",
    )


async def _limits(client: ActionsCacheClient) -> Finding:
    limits = await client.limits()
    quota = f"{(limits.quota or 0) / 10**9:g} GB"
    if limits.is_assumed:
        return note(
            "quota",
            f"the token may not ask for it: {quota} are assumed",
            "if it differs, set `quota`",
        )
    kept = f", and what is unused for {limits.retention.days} days" if limits.retention else ""
    return ok("quota", f"GitHub evicts what exceeds {quota}{kept}")


def _rate_limit(client: ActionsCacheClient) -> Finding:
    remaining, limit = client.requests.rate_limit_remaining, client.requests.rate_limit
    if remaining is None:
        return ok("rate limit", "the REST API names none")
    if remaining >= _FEW_REQUESTS:
        return ok("rate limit", f"{remaining:,} of {limit or remaining:,} requests remain")
    reset = client.requests.rate_limit_reset_at
    until = f" until {reset:%H:%M} UTC" if reset else ""
    return problem("rate limit", f"{remaining:,} requests remain{until}", "run later")


async def _closed_refs(client: ActionsCacheClient) -> Finding:
    await client.check_refs()
    return ok("closed refs", "the token may ask which refs are closed")
