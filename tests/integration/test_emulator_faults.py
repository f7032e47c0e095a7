"""Each fault does what it says, to the requests that it names, and to no other."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import httpx2
import pytest

from maintainer.emulator import (
    ActionsCache,
    Fault,
    FaultPlan,
    Kind,
    Request,
    Running,
    load_faults,
    serve_in_thread,
)
from maintainer.emulator.command import run_emulator
from maintainer.emulator.faults import FaultKind
from maintainer.errors import UsageError

MAIN = "refs/heads/main"
KINDS: list[Kind] = ["list", "look-up", "download", "reserve", "upload", "finalize", "delete"]
CHANGING: list[Kind] = ["reserve", "upload", "finalize", "delete"]
TWIRP = "/twirp/github.actions.results.api.v1.CacheService"
CONTENT = b"0123456789" * 100


class World:
    """A cache in which a request of each kind has something to do."""

    def __init__(self, running: Running, cache: ActionsCache) -> None:
        environment = running.environment(MAIN)
        self.running = running
        self.cache = cache
        self.seen: list[Request] = []
        running.observe(after=self.seen.append)
        self.http = httpx2.Client(base_url=running.url, timeout=5.0)
        self.runtime = {"Authorization": f"Bearer {environment['ACTIONS_RUNTIME_TOKEN']}"}
        self.rest = {"Authorization": f"Bearer {environment['GITHUB_TOKEN']}"}
        for name in ("one", "two", "three"):
            cache.put(name, CONTENT, ref=MAIN, version="v")
        self.download_url = self.twirp("GetCacheEntryDownloadURL", "one").json()[
            "signed_download_url"
        ]
        self.upload_url = self.twirp("CreateCacheEntry", "sent").json()["signed_upload_url"]
        self.put(self.upload_url)
        self.unsent_url = self.twirp("CreateCacheEntry", "unsent").json()["signed_upload_url"]
        self.seen.clear()

    def request(self, kind: Kind) -> httpx2.Response:
        """Make a request that succeeds if nothing goes wrong."""
        calls: dict[Kind, Callable[[], httpx2.Response]] = {
            "list": self.list,
            "look-up": lambda: self.twirp("GetCacheEntryDownloadURL", "one"),
            "download": lambda: self.http.get(self.download_url),
            "reserve": lambda: self.twirp("CreateCacheEntry", "new"),
            "upload": lambda: self.put(self.unsent_url),
            "finalize": lambda: self.twirp(
                "FinalizeCacheEntryUpload", "sent", size_bytes=len(CONTENT)
            ),
            "delete": lambda: self.http.delete("/repos/a/b/actions/caches/3", headers=self.rest),
        }
        return calls[kind]()

    def list(self) -> httpx2.Response:
        params = {"sort": "created_at", "direction": "asc"}
        return self.http.get("/repos/a/b/actions/caches", headers=self.rest, params=params)

    def twirp(self, method: str, key: str, **more: object) -> httpx2.Response:
        body = {"key": key, "version": "v", **more}
        return self.http.post(f"{TWIRP}/{method}", headers=self.runtime, json=body)

    def put(self, url: str) -> httpx2.Response:
        return self.http.put(url, content=CONTENT, headers={"x-ms-blob-type": "BlockBlob"})

    def state(self) -> object:
        """Return all that a request can change, but for when entries were used."""

        def tell(cache: ActionsCache) -> object:
            uploads = [cache.upload(number) for number in range(1, 10)]
            return (
                [entry.key for entry in cache.entries()],
                cache.reserved,
                [upload and upload.content for upload in uploads],
            )

        return self.running.call(tell)

    def inject(self, *faults: Fault, seed: int = 0) -> None:
        self.running.inject(FaultPlan(faults, seed))


@pytest.fixture
def world() -> Iterator[World]:
    cache = ActionsCache()
    with serve_in_thread(cache) as running:
        world = World(running, cache)
        yield world
        world.http.close()


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_fault_each_request_succeeds(world: World, kind: Kind) -> None:
    before = world.state()
    assert world.request(kind).is_success
    assert (world.state() != before) == (kind in CHANGING)
    assert [(request.kind, request.fault) for request in world.seen] == [(kind, None)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502, 503, 504])
def test_a_status_is_answered_and_nothing_is_done(world: World, kind: Kind, status: int) -> None:
    before = world.state()
    world.inject(
        Fault(kind="status", request=kind, status=status, retry_after=3, rate_limit_reset=60)
    )
    answer = world.request(kind)
    assert answer.status_code == status
    assert answer.headers["retry-after"] == "3"
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert answer.headers["x-ratelimit-reset"].isdigit()
    assert world.state() == before
    assert world.seen[-1].fault == "status"


def test_a_status_can_come_without_a_word_of_when_to_come_again(world: World) -> None:
    world.inject(Fault(kind="status", status=429))
    assert not {"retry-after", "x-ratelimit-remaining"} & set(world.request("list").headers)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fault", "done"), [("reset", False), ("lost-answer", True)])
def test_a_connection_breaks_before_or_after_the_request_was_carried_out(
    world: World, kind: Kind, fault: FaultKind, done: bool
) -> None:
    before = world.state()
    world.inject(Fault(kind=fault, request=kind))
    # A client that was still sending may be told of an end in place of a reset.
    with pytest.raises((httpx2.NetworkError, httpx2.RemoteProtocolError)):
        world.request(kind)
    assert (world.state() != before) == (done and kind in CHANGING)
    assert [(r.kind, r.status, r.fault) for r in world.seen] == [(kind, None, fault)]
    world.inject()
    assert world.list().is_success


@pytest.mark.parametrize("kind", KINDS)
def test_a_stalled_request_gets_no_answer(world: World, kind: Kind) -> None:
    before = world.state()
    world.http.timeout = httpx2.Timeout(5.0, read=0.2)
    world.inject(Fault(kind="stall", request=kind))
    with pytest.raises(httpx2.ReadTimeout):
        world.request(kind)
    assert world.state() == before
    world.http.timeout = httpx2.Timeout(5.0)
    world.inject(Fault(kind="stall", request=kind, seconds=0.1))
    with pytest.raises((httpx2.NetworkError, httpx2.RemoteProtocolError)):
        world.request(kind)
    assert world.state() == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_or_another_shape_comes_in_place_of_the_answer(world: World, kind: Kind) -> None:
    before = world.state()
    world.inject(Fault(kind="html", request=kind))
    answer = world.request(kind)
    assert answer.status_code == httpx2.codes.OK
    assert answer.headers["content-type"].startswith("text/html")
    world.inject(Fault(kind="wrong-shape", request=kind, body="[1]"))
    answer = world.request(kind)
    assert (answer.status_code, answer.json()) == (httpx2.codes.OK, [1])
    assert world.state() == before


@pytest.mark.parametrize("kind", CHANGING)
@pytest.mark.parametrize(("fault", "status"), [("stored-but-failed", 503), ("gone", 404)])
def test_a_request_is_carried_out_and_the_client_is_told_otherwise(
    world: World, kind: Kind, fault: FaultKind, status: int
) -> None:
    before = world.state()
    world.inject(Fault(kind=fault, request=kind, status=503))
    assert world.request(kind).status_code == status
    assert world.state() != before


@pytest.mark.parametrize("kind", ["list", "look-up", "download", "reserve", "finalize"])
def test_half_of_an_answer_comes_and_then_the_end(world: World, kind: Kind) -> None:
    world.inject(Fault(kind="truncated", request=kind))
    with pytest.raises(httpx2.RemoteProtocolError, match="complete message"):
        world.request(kind)
    assert world.seen[-1].fault == "truncated"


def test_half_of_a_large_download_comes(world: World) -> None:
    size = 5 * 1024**2
    world.running.call(lambda cache: cache.put("large", size=size, ref=MAIN, version="v"))
    url = world.twirp("GetCacheEntryDownloadURL", "large").json()["signed_download_url"]
    world.inject(Fault(kind="truncated"))
    with pytest.raises(httpx2.RemoteProtocolError, match=rf"received {size // 2} bytes"):
        world.http.get(url)


def test_a_look_up_misses_what_exists(world: World) -> None:
    world.inject(Fault(kind="miss", request="look-up"))
    assert world.request("look-up").json()["ok"] is False
    answer = world.http.get(
        "/_apis/artifactcache/cache",
        params={"keys": "one", "version": "v"},
        headers=world.runtime,
    )
    assert answer.status_code == httpx2.codes.NO_CONTENT
    world.inject()
    assert world.request("look-up").json()["ok"] is True


@pytest.mark.parametrize("kind", ["download", "upload"])
def test_a_signed_url_is_no_longer_good(world: World, kind: Kind) -> None:
    before = world.state()
    world.inject(Fault(kind="expired", request=kind))
    answer = world.request(kind)
    assert answer.status_code == httpx2.codes.FORBIDDEN
    assert answer.headers["x-ms-error-code"] == "AuthenticationFailed"
    assert world.state() == before


def test_a_download_finds_no_content_and_the_entry_stays(world: World) -> None:
    before = world.state()
    world.inject(Fault(kind="no-content", request="download"))
    answer = world.request("download")
    assert answer.status_code == httpx2.codes.NOT_FOUND
    assert answer.headers["x-ms-error-code"] == "BlobNotFound"
    assert world.state() == before


@pytest.mark.parametrize(
    ("fault", "total", "keys"),
    [
        (Fault(kind="repeat"), 3, ["one", "two", "one"]),
        (Fault(kind="omit"), 3, ["two", "three"]),
        (Fault(kind="total", delta=-1), 2, ["one", "two", "three"]),
        (Fault(kind="total", delta=100), 103, ["one", "two", "three"]),
    ],
)
def test_a_list_is_wrong(world: World, fault: Fault, total: int, keys: list[str]) -> None:
    world.inject(fault)
    page = world.list().json()
    assert page["total_count"] == total
    assert [entry["key"] for entry in page["actions_caches"]] == keys


def test_a_list_page_without_entries_stays_as_it_is(world: World) -> None:
    world.running.call(ActionsCache.clear)
    for kind in ("repeat", "omit"):
        world.inject(Fault(kind=kind))
        assert world.list().json() == {"total_count": 0, "actions_caches": []}


def test_what_is_no_list_is_not_made_wrong(world: World) -> None:
    world.inject(Fault(kind="omit"))
    assert world.request("look-up").json()["matched_key"] == "one"
    assert world.request("download").content == CONTENT


def test_headers_come_with_the_right_answer(world: World) -> None:
    world.inject(Fault(kind="headers", headers={"x-ratelimit-remaining": "12"}))
    answer = world.list()
    assert answer.json()["total_count"] == 3
    assert answer.headers["x-ratelimit-remaining"] == "12"


def _hits(world: World, fault: Fault, count: int = 8, seed: int = 0) -> list[int]:
    world.inject(fault, seed=seed)
    answers = [world.list() for _ in range(count)]
    return [number for number, answer in enumerate(answers, 1) if not answer.is_success]


def test_faults_hit_the_requests_that_they_name(world: World) -> None:
    assert _hits(world, Fault(kind="status")) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert _hits(world, Fault(kind="status", times=2)) == [1, 2]
    assert _hits(world, Fault(kind="status", nth=3)) == [3]
    assert _hits(world, Fault(kind="status", nth=3, times=2)) == [3, 4]
    assert _hits(world, Fault(kind="status", every=3)) == [3, 6]
    assert _hits(world, Fault(kind="status", every=3, times=1)) == [3]
    assert _hits(world, Fault(kind="status", request="delete")) == []


def test_chance_is_the_same_each_time_with_the_same_seed(world: World) -> None:
    fault = Fault(kind="status", probability=0.5)
    first = _hits(world, fault, 20, seed=1)
    assert 0 < len(first) < 20
    assert _hits(world, fault, 20, seed=1) == first
    assert _hits(world, fault, 20, seed=2) != first
    assert _hits(world, Fault(kind="status", probability=0)) == []


def test_a_fault_can_be_about_some_keys_only(world: World) -> None:
    world.inject(Fault(kind="miss", key="t"))
    found = {
        key: world.twirp("GetCacheEntryDownloadURL", key).json()["ok"]
        for key in ("one", "two", "three")
    }
    assert found == {"one": True, "two": False, "three": False}


def test_the_first_of_several_faults_is_what_happens(world: World) -> None:
    world.inject(Fault(kind="status", status=503, nth=2), Fault(kind="status", status=500))
    assert [world.list().status_code for _ in range(3)] == [500, 503, 500]


TOML = """
seed = 7

[[faults]]
request = "look-up"
kind = "status"
status = 429
retry_after = 1
nth = 2

[[faults]]
kind = "lost-answer"
probability = 0.2
"""
PLAN = FaultPlan(
    (
        Fault(request="look-up", kind="status", status=429, retry_after=1, nth=2),
        Fault(kind="lost-answer", probability=0.2),
    ),
    seed=7,
)


def test_a_plan_is_read_from_toml_and_json(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(TOML)
    assert load_faults(tmp_path / "plan.toml") == PLAN
    faults = [
        {"request": "look-up", "kind": "status", "status": 429, "retry_after": 1, "nth": 2},
        {"kind": "lost-answer", "probability": 0.2},
    ]
    (tmp_path / "plan.json").write_text(json.dumps({"seed": 7, "faults": faults}))
    assert load_faults(tmp_path / "plan.json") == PLAN


@pytest.mark.parametrize(
    "text",
    [
        "faults = 1",
        "fault = []",
        "[[faults]]",
        '[[faults]]\nkind = "sneeze"',
        '[[faults]]\nkind = "status"\nstatus = 200',
        '[[faults]]\nkind = "status"\nstatus = 599',
        '[[faults]]\nkind = "status"\nnth = 0',
        '[[faults]]\nkind = "status"\nnth = 1\nevery = 2',
        '[[faults]]\nkind = "status"\nprobability = 2.0',
        '[[faults]]\nkind = "status"\nretry_after = "1\\r\\nx: y"',
        '[[faults]]\nkind = "status"\n[faults.headers]\n"a b" = "c"',
        "\n[",
        "\xff",
    ],
)
def test_a_plan_that_is_not_valid_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"plan\.toml is not valid: .") as caught:
        run_emulator("127.0.0.1:0", faults=path)
    assert "\n" not in str(caught.value)


def test_a_plan_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load_faults(tmp_path / "none.toml")


def test_every_kind_of_fault_is_tested_here() -> None:
    text = Path(__file__).read_text()
    assert [kind for kind in get_args(FaultKind) if f'"{kind}"' not in text] == []
