"""Version 1 of the cache service against a server that no one here wrote: the one inside `act`."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.act import Act
from tests.integration import in_act
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
WORKFLOW = """\
on: push
jobs:
  cache:
    runs-on: ubuntu-latest
    steps:
      - run: {command}
"""


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the script in a step of a workflow, and give what it tells."""
    place = tmp_path_factory.mktemp("act")
    act, output = Act.in_a_new_repository(place), place / "told.json"
    script = [sys.executable, "-m", in_act.__name__, str(output)]
    act.add("cache.yml", WORKFLOW.format(command=json.dumps(shlex.join(script))))
    options = {
        "--env": f"PYTHONPATH={ROOT}",
        "--cache-server-addr": "127.0.0.1",
        "--cache-server-port": "0",
        "--cache-server-path": str(place / "cache-server"),
        # It is this server that makes act give out a token.
        "--artifact-server-addr": "127.0.0.1",
        "--artifact-server-port": str(free_port()),
        "--artifact-server-path": str(place / "artifacts"),
    }
    status, log = act.run("push", *(f"{name}={value}" for name, value in options.items()))
    assert status == 0, log
    came: dict[str, Any] = json.loads(output.read_text())
    return came


def test_blobs_come_back_as_they_went(told: dict[str, Any]) -> None:
    assert told["blobs"] == {k: v.decode("latin-1") for k, v in in_act.BLOBS.items()}


def test_more_than_a_chunk_comes_back_as_it_went(told: dict[str, Any]) -> None:
    assert told["large"] is True


def test_what_was_never_written_is_missing(told: dict[str, Any]) -> None:
    assert told["missing"] is None
    assert told["newest of another scope"] is None


def test_a_generation_that_another_begins_with_is_not_mistaken_for_it(
    told: dict[str, Any],
) -> None:
    assert told["loose match of the twelfth"] is None
    assert told["first"] == "one"
    assert told["twelfth"] == "twelve"


def test_keys_are_found_although_the_server_lowers_them(told: dict[str, Any]) -> None:
    assert told["spelt"] == "index-web-1-49c8f7d5#12"


def test_the_newest_is_the_one_created_last(told: dict[str, Any]) -> None:
    assert told["newest"] == "index-web-1-49c8f7d5#13"


def test_a_key_can_be_taken_twice_in_act_alone(told: dict[str, Any]) -> None:
    # Github.com and others refuse it. Here only asking for the next generation, right before it
    # is written, keeps a run from hiding one that a build has written meanwhile.
    assert told["overwriting"] == "accepted"
    assert told["overwritten"] == "overwritten"


def test_a_comma_cannot_be_looked_up(told: dict[str, Any]) -> None:
    assert "comma" in told["comma"]


def test_the_token_names_no_ref(told: dict[str, Any]) -> None:
    assert told["name"] == "github:127.0.0.1/octo/cache"
    assert told["readable"] == told["writable"] == [""]


def test_requests_are_as_few_as_there_can_be(told: dict[str, Any]) -> None:
    writes = len(in_act.BLOBS) + 5
    chunks_of_large = 2
    assert told["requests"] == {
        "look-up": 12,
        "download": 7,
        "reserve": writes,
        "upload": writes - 1 + chunks_of_large,
        "finalize": writes,
    }
