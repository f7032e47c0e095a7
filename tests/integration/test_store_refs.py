"""Whether a ref is closed, by the answers of the REST API: only a plain one proves anything."""

from collections.abc import Iterator

import pytest

from maintainer.cacheconfig import Ref
from maintainer.errors import StoreError
from maintainer.model.reason import ClosedRefsUnknown, PullRequestClosed, RefDeleted
from maintainer.stores.github.keyed import ClosedRefs
from tests.integration.connecting import store_rest
from tests.integration.scripted import Reply, Server, html, json, serve

pytestmark = pytest.mark.anyio

PULL, BRANCH = Ref("refs/pull/7/merge"), Ref("refs/heads/topic")
NOT_FOUND = json({"message": "Not Found"}, 404)
FORBIDDEN = json({"message": "Resource not accessible by integration"}, 403)
UNAUTHORIZED = json({"message": "Bad credentials"}, 401)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server() -> Iterator[Server]:
    """Serve a readable repository, in which nothing is closed."""
    with serve() as started:
        started.on("cache", json({"default_branch": "main"}))
        started.on("main", json({"ref": "refs/heads/main"}))
        started.on("topic", json({"ref": "refs/heads/topic"}))
        started.on("7", json({"number": 7, "state": "open", "closed_at": None}))
        yield started


async def _always() -> bool:
    return True


async def find(server: Server, *refs: Ref) -> ClosedRefs:
    async with store_rest(server.url) as store:
        return await store.closed_refs(refs, _always)


async def test_what_exists_and_is_open_is_not_closed(server: Server) -> None:
    assert await find(server, PULL, BRANCH) == ClosedRefs({})


async def test_a_closed_pull_request_and_a_missing_branch_are_closed(server: Server) -> None:
    server.on("7", json({"number": 7, "state": "closed", "closed_at": None}))
    server.on("topic", NOT_FOUND)

    found = await find(server, PULL, BRANCH)

    assert found.closed == {PULL: PullRequestClosed(7, None), BRANCH: RefDeleted(BRANCH)}
    assert found.notes == ()


@pytest.mark.parametrize(
    "reply",
    [
        NOT_FOUND,
        FORBIDDEN,
        UNAUTHORIZED,
        html(),
        html(404),
        json({"number": 8, "state": "closed"}),
        json({"number": 7, "state": "merged"}),
        json([]),
        Reply(200),
        Reply(204),
        Reply(410),
    ],
    ids=lambda reply: f"{reply.status} {reply.body[:40].decode()}",
)
async def test_no_other_answer_about_a_pull_request_proves_anything(
    server: Server, reply: Reply
) -> None:
    server.on("7", reply)

    found = await find(server, PULL)

    assert not found.closed
    [note] = found.notes
    assert isinstance(note, ClosedRefsUnknown)
    assert note.refs == 1


@pytest.mark.parametrize(
    ("path", "reply"),
    [
        ("topic", FORBIDDEN),
        ("topic", UNAUTHORIZED),
        ("topic", html()),
        ("topic", html(404)),
        ("topic", json({"ref": "refs/heads/topic/one"})),
        ("topic", json([{"ref": "refs/heads/topic/one"}])),
        ("topic", Reply(204)),
        ("topic", Reply(409)),
        ("main", NOT_FOUND),
        ("main", FORBIDDEN),
        ("cache", NOT_FOUND),
        ("cache", json({"default_branch": ""})),
        ("cache", html()),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.status} {value.body[:30]!r}",
)
async def test_no_other_answer_about_a_branch_proves_anything(
    server: Server, path: str, reply: Reply
) -> None:
    server.on("topic", NOT_FOUND)
    server.on(path, reply)

    found = await find(server, BRANCH)

    assert not found.closed
    assert isinstance(found.notes[0], ClosedRefsUnknown)


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (
            UNAUTHORIZED,
            "answers HTTP 401: GITHUB_TOKEN holds no token that it knows, or one that has expired",
        ),
        (
            FORBIDDEN,
            "answers HTTP 403: the token in GITHUB_TOKEN needs the permission `contents: read`",
        ),
    ],
)
async def test_an_unknown_token_needs_no_permission_but_another_token(
    server: Server, reply: Reply, problem: str
) -> None:
    server.on("topic", reply)

    [note] = (await find(server, BRANCH)).notes

    assert isinstance(note, ClosedRefsUnknown)
    assert note.problem.endswith(problem)


@pytest.mark.parametrize("closed_at", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"])
async def test_a_time_that_cannot_be_proves_nothing(server: Server, closed_at: str) -> None:
    server.on("7", json({"number": 7, "state": "closed", "closed_at": closed_at}))

    assert await find(server, PULL) == ClosedRefs({})


async def test_the_default_branch_is_never_closed(server: Server) -> None:
    found = await find(server, Ref("refs/heads/main"))
    server.on("main", NOT_FOUND)
    later = await find(server, Ref("refs/heads/main"))

    assert not found.closed
    assert not later.closed


async def test_a_pull_request_that_is_not_shown_keeps_nothing_from_the_others(
    server: Server,
) -> None:
    server.on("7", NOT_FOUND)
    server.on("8", json({"number": 8, "state": "closed", "closed_at": "2026-01-01T00:00:00Z"}))

    found = await find(server, PULL, Ref("refs/pull/8/merge"))

    assert set(found.closed) == {"refs/pull/8/merge"}
    assert len(found.notes) == 1


async def test_a_server_that_is_in_trouble_is_not_asked_about_every_ref(server: Server) -> None:
    server.on("8", Reply(500))
    others = [Ref(f"refs/pull/{number}/merge") for number in (8, 9, 10)]

    found = await find(server, *others)

    assert found.notes == (ClosedRefsUnknown(3, found.notes[0].problem),)  # type: ignore[union-attr]
    assert {request.path.rpartition("/")[2] for request in server.requests} == {"8"}


async def test_names_are_quoted(server: Server) -> None:
    server.on("a%23b%252F%21%C3%BC", NOT_FOUND)
    ref = Ref("refs/heads/a#b%2F!ü")

    assert set((await find(server, ref)).closed) == {ref}


async def test_a_question_that_is_asked_again_may_fail(server: Server) -> None:
    async with store_rest(server.url) as store:
        server.on("7", json({"number": 7, "state": "closed"}))
        assert await store.closed_ref(PULL)
        server.on("7", FORBIDDEN)
        with pytest.raises(StoreError, match="pull-requests: read"):
            await store.closed_ref(PULL)
