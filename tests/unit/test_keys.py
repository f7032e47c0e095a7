"""A key is ours only if it follows BuildKit's grammar to the letter."""

import hashlib
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from maintainer.cacheconfig import (
    ENTRY_VERSION,
    BlobKey,
    Digest,
    Generation,
    IndexId,
    IndexKey,
    Ref,
    Scope,
    SignatureKey,
    content_digest,
    hash_ref,
    matches,
    may_be_buildkits,
    may_be_index,
    parse_key,
)
from maintainer.cacheconfig.keys import MAX_KEY_LENGTH, is_digest
from maintainer.demo import load_history

HEX = "5843" * 16
DIGEST = Digest(f"sha256:{HEX}")

_hex = st.text("0123456789abcdef", min_size=8, max_size=8)
_digests = st.binary(max_size=8).flatmap(
    lambda content: st.sampled_from(["sha256", "sha384", "sha512"]).map(
        lambda name: Digest(f"{name}:{hashlib.new(name, content).hexdigest()}")
    )
)
_pieces = st.sampled_from(
    ["-1-", "-sig", "#", "\n", "49c8f7d5", "index-", "-1-49c8f7d5#3", ",", "é"]
)
_scopes = st.lists(_pieces | st.text(max_size=5), max_size=6).map("".join).map(Scope)
_index_keys = st.builds(
    IndexKey, _scopes, _hex, st.integers(1, 10**18 - 1).map(Generation), st.booleans()
)
_keys = _index_keys | st.builds(BlobKey, _digests) | st.builds(SignatureKey, _digests)


@pytest.mark.parametrize(
    ("key", "is_one"),
    [
        ("index-buildkit-1-49c8f7d5#3", True),
        ("index-buildkit-2-49c8f7d5-sig#3", True),
        (f"index-a-b-17-49c8f7d5#{10**18}", True),
        ("Index-buildkit-1-49C8F7D5#3", True),
        ("index-buildkit-1-49c8f7d5", False),
        ("index-of-pages-49c8f7d5#3", False),
        (f"buildkit-blob-2-{DIGEST}", False),
        ("setup-node-index-1-2-49c8f7d5#3", False),
    ],
)
def test_an_index_of_another_version_is_told_by_its_key(key: str, *, is_one: bool) -> None:
    assert may_be_index(key) == is_one
    assert may_be_buildkits(key) == (is_one or key.startswith("buildkit-blob-"))


@given(_keys)
def test_a_key_that_is_written_is_read_as_the_same_key(
    key: BlobKey | SignatureKey | IndexKey,
) -> None:
    assert parse_key(str(key)) == key


@given(st.text() | st.builds(lambda *parts: "".join(parts), _pieces, st.text(), _pieces, _pieces))
def test_whatever_is_read_as_a_key_is_written_as_the_same_text(text: str) -> None:
    parsed = parse_key(text)

    assert parsed is None or str(parsed) == text


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f"buildkit-blob-1-{DIGEST}", BlobKey(DIGEST)),
        (f"buildkit-blob-1-{DIGEST}-sig", SignatureKey(DIGEST)),
        (
            "index-buildkit-1-49c8f7d5#6",
            IndexKey(Scope("buildkit"), "49c8f7d5", Generation(6)),
        ),
        (
            "index-buildkit-1-49c8f7d5-sig#6",
            IndexKey(Scope("buildkit"), "49c8f7d5", Generation(6), signed=True),
        ),
        (
            "index-buildkit-sig-1-49c8f7d5#6",
            IndexKey(Scope("buildkit-sig"), "49c8f7d5", Generation(6)),
        ),
        (
            "index-web-1-deadbeef-1-49c8f7d5#12",
            IndexKey(Scope("web-1-deadbeef"), "49c8f7d5", Generation(12)),
        ),
        (
            "index-web-1-deadbeef-sig#3-1-49c8f7d5#12",
            IndexKey(Scope("web-1-deadbeef-sig#3"), "49c8f7d5", Generation(12)),
        ),
        (
            "index-web-1-49c8f7d5#3-1-49c8f7d5-sig#12",
            IndexKey(Scope("web-1-49c8f7d5#3"), "49c8f7d5", Generation(12), signed=True),
        ),
        ("index--1-49c8f7d5#1", IndexKey(Scope(""), "49c8f7d5", Generation(1))),
        ("index-a\nb-1-49c8f7d5#1", IndexKey(Scope("a\nb"), "49c8f7d5", Generation(1))),
        (
            f"index-buildkit-1-49c8f7d5#{'9' * 18}",
            IndexKey(Scope("buildkit"), "49c8f7d5", Generation(10**18 - 1)),
        ),
    ],
)
def test_each_kind_of_key_is_told_from_the_others(
    text: str, key: BlobKey | SignatureKey | IndexKey
) -> None:
    assert parse_key(text) == key
    assert str(key) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "setup-node-Linux-x64-npm-0a1b",
        "v0-rust-test-Linux-x64-0a1b",
        "buildkit-blob-1-",
        "buildkit-blob-1-sha256:",
        "buildkit-blob-1-sha256:XYZ",
        f"buildkit-blob-1-sha256:{HEX.upper().replace('5', 'A')}",
        f"buildkit-blob-1-sha256:{HEX[1:]}",
        f"buildkit-blob-1-sha256:{HEX}0",
        f"buildkit-blob-1-sha512:{HEX}",
        f"buildkit-blob-1-md5:{HEX[:32]}",
        f"buildkit-blob-1-SHA256:{HEX}",
        f"buildkit-blob-1-{HEX}",
        f"buildkit-blob-2-{DIGEST}",
        f"buildkit-blob-1-{DIGEST}-SIG",
        f"buildkit-blob-1-{DIGEST}-sig-sig",
        f"buildkit-blob-1-{DIGEST}-sig#3",
        f"buildkit-blob-1-{DIGEST}#3",
        f"buildkit-blob-1-{DIGEST}\n",
        f" buildkit-blob-1-{DIGEST}",
        f"x-buildkit-blob-1-{DIGEST}",
        f"Buildkit-blob-1-{DIGEST}",
        "index-buildkit-1-49c8f7d5",
        "index-buildkit-1-49c8f7d5#",
        "index-buildkit-1-49c8f7d5#0",
        "index-buildkit-1-49c8f7d5#06",
        "index-buildkit-1-49c8f7d5#-1",
        "index-buildkit-1-49c8f7d5#+1",
        "index-buildkit-1-49c8f7d5#1_0",
        "index-buildkit-1-49c8f7d5# 1",
        "index-buildkit-1-49c8f7d5#1 ",
        "index-buildkit-1-49c8f7d5#1\n",
        "index-buildkit-1-49c8f7d5#\u0663",
        "index-buildkit-1-49c8f7d5#0x1",
        f"index-buildkit-1-49c8f7d5#1{'0' * 18}",
        "index-buildkit-1-49c8f7d5-sig-sig#1",
        "index-buildkit-1-49c8f7d5-sig",
        "index-buildkit-1-49c8f7d5sig#1",
        "index-buildkit-1-49c8f7d5-SIG#1",
        "index-buildkit-1-49c8f7d#1",
        "index-buildkit-1-49c8f7d55#1",
        "index-buildkit-1-49C8F7D5#1",
        "index-buildkit-1-49c8f7g5#1",
        "index-buildkit-2-49c8f7d5#1",
        "index-1-49c8f7d5#1",
        "index-buildkit49c8f7d5#1",
        " index-buildkit-1-49c8f7d5#1",
        "Index-buildkit-1-49c8f7d5#1",
    ],
)
def test_other_tools_keys_and_near_misses_are_not_ours(text: str) -> None:
    assert parse_key(text) is None


@given(_keys, st.text(min_size=1, max_size=3))
def test_no_key_is_ours_with_something_before_or_behind_it(
    key: BlobKey | SignatureKey | IndexKey, more: str
) -> None:
    assume(not re.match("[0-9]", more, re.ASCII))

    assert parse_key(f"{more}{key}") is None
    assert parse_key(f"{key}{more}") is None


def test_keys_longer_than_the_host_takes_are_not_ours() -> None:
    frame = len("index--1-49c8f7d5#1")
    longest = f"index-{'x' * (MAX_KEY_LENGTH - frame)}-1-49c8f7d5#1"

    assert len(longest) == MAX_KEY_LENGTH == 512
    assert parse_key(longest) is not None
    assert parse_key(longest.replace("x", "xx", 1)) is None


def test_keys_do_not_take_long_to_refuse() -> None:
    # Were matching quadratic or worse, `-1-` over and over would show it.
    assert parse_key("index-" + "-1-" * 168) is None
    assert parse_key("index-" + "-1-49c8f7d5" * 46) is None


def test_all_keys_of_the_recorded_history_are_understood() -> None:
    kinds = {"buildkit": BlobKey, "index": IndexKey}
    for entry in load_history():
        expected = kinds.get(entry.key.split("-")[0])
        parsed = parse_key(entry.key)
        assert parsed is None if expected is None else isinstance(parsed, expected), entry.key


def test_the_hash_of_a_ref_is_the_one_in_the_keys_that_buildkit_writes() -> None:
    assert hash_ref(Ref("refs/heads/master")) == "49c8f7d5"
    assert hash_ref(Ref("refs/heads/main")) == "f921bd05"


def test_the_hash_of_a_ref_is_defined_for_any_text() -> None:
    assert len(hash_ref(Ref("refs/heads/\ud800"))) == 8


@pytest.mark.parametrize("signed", [False, True])
def test_an_index_knows_the_keys_of_its_generations(signed: bool) -> None:
    index = IndexId(Ref("refs/heads/master"), Scope("web"), signed=signed)
    name = f"index-web-1-49c8f7d5{'-sig' if signed else ''}"

    assert str(index) == name
    assert index.prefix == f"{name}#"
    assert index.key(7) == IndexKey(Scope("web"), "49c8f7d5", Generation(7), signed)
    assert str(index.key(7)) == f"{name}#7"
    assert index.key(7).prefix == index.prefix


def test_the_name_of_an_index_keeps_a_number_sign_of_its_scope() -> None:
    assert str(IndexId(Ref("refs/heads/master"), Scope("a#"))) == "index-a#-1-49c8f7d5"


@given(st.binary(max_size=50))
def test_the_digest_of_content_is_a_digest(content: bytes) -> None:
    assert content_digest(content) == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert is_digest(content_digest(content))


def test_the_entry_version_is_what_buildkits_client_computes() -> None:
    assert hashlib.sha256(b"|go-actionscache-1.0").hexdigest() == ENTRY_VERSION


@given(st.sampled_from(["sha256", "sha384", "sha512"]), st.binary(), st.binary())
def test_content_matches_its_own_digest_only(name: str, content: bytes, other: bytes) -> None:
    digest = Digest(f"{name}:{hashlib.new(name, content).hexdigest()}")

    assert matches(digest, content)
    assert matches(digest, other) is (other == content)
