"""Whatever somebody writes who wishes us no good: it is read or refused, at a bounded cost.

Costs are counted in bytes, per byte or per record of the input, at one size and at eight times that
size: so they show what grows, on a machine of any speed.
"""

import base64
import gc
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from maintainer.cacheconfig import (
    Ref,
    decode,
    encode,
    may_be_buildkits,
    merge,
    parse_key,
    prune,
)
from maintainer.cacheconfig.keys import MAX_KEY_LENGTH, IndexKey, hash_ref
from maintainer.errors import InvalidIndexError, UsageError
from maintainer.settings import Settings, check_cron, load_settings, parse_duration
from maintainer.stores.github.token import read_access
from tests.nasty import NASTY

_D = b'"sha256:' + b"0" * 64 + b'"'
_LAYER = b'{"blob":%s,"parent":%%d,"annotations":{"diffID":%s}}' % (_D, _D)
_GROWTH = 8


def _refused(content: bytes) -> str:
    with pytest.raises(InvalidIndexError) as told:
        decode(content)
    return str(told.value)


def _is_one_line(error: Exception) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 1_000


def _read_or_refused(content: bytes) -> None:
    try:
        config = decode(content)
    except InvalidIndexError as error:
        _is_one_line(error)
        return
    assert decode(encode(config)) == config
    merged = merge([config])
    assert merge([config, merged]) == merged
    assert prune(merged, frozenset()).layers == ()


def _list(name: str, one: bytes, count: int) -> bytes:
    return b'{"%s":[%s]}' % (name.encode(), b",".join([one] * count))


def _ring(count: int) -> bytes:
    """Return records each of which needs the next, and the last the first."""
    links = (b'{"digest":"a","inputs":[[{"link":%d}]]}' % ((n + 1) % count) for n in range(count))
    return b'{"records":[%s]}' % b",".join(links)


def _parent_ring(count: int) -> bytes:
    return b'{"layers":[%s]}' % b",".join(_LAYER % ((n + 1) % count) for n in range(count))


def _chain(count: int) -> bytes:
    """Return records each of which needs the one before: as deep as there are records."""
    links = (b'{"digest":"a","inputs":[[{"link":%d}]]}' % (n - 1) for n in range(1, count))
    return b'{"records":[%s]}' % b",".join([b'{"digest":"a"}', *links])


def _tower(count: int) -> bytes:
    """Return layers each of which stands on the one before."""
    return b'{"layers":[%s]}' % b",".join(_LAYER % (n - 1) for n in range(count))


def _fan(count: int) -> bytes:
    """Return a record with as many alternatives, all the same one."""
    links = b",".join([b'{"link":0}'] * count)
    return b'{"records":[{"digest":"a"},{"digest":"b","inputs":[[%s]]}]}' % links


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "records that need each other in a ring": _ring,
    "layers that stand on each other in a ring": _parent_ring,
    "records that need themselves": lambda n: _list(
        "records", b'{"digest":"a","inputs":[[{"link":0}]]}', n
    ),
    "records as deep as there are": _chain,
    "layers as deep as there are": _tower,
    "alternatives that are all the same": _fan,
    "empty records": lambda n: _list("records", b"{}", n),
    "layers without anything": lambda n: _list("layers", b"{}", n),
    "an input that is empty": lambda n: _list("records", b'{"inputs":[[]]}', n),
    "nested lists": lambda n: b'{"records":' + b"[" * n,
    "nested objects": lambda n: b'{"records":[' + b'{"inputs":' * n,
    "nesting in what is not read": lambda n: b'{"x":' + b"[" * n + b"]" * n + b"}",
    "one name again and again": lambda n: b'{%s"layers":[]}' % (b'"layers":[],' * n),
    "a number of many digits": lambda n: b'{"layers":[{"parent":' + b"9" * n + b"}]}",
    "a fraction of many digits": lambda n: b'{"layers":[{"parent":0.' + b"9" * n + b"}]}",
    "an exponent of many digits": lambda n: b'{"layers":[{"parent":1e' + b"9" * n + b"}]}",
    "one long string": lambda n: b'{"records":[{"digest":"' + b"x" * n + b'"}]}',
    "escapes": lambda n: b'{"records":[{"digest":"' + rb"\u0000" * n + b'"}]}',
    "blanks": lambda n: b" " * n + b"{}",
    "bytes that are no UTF-8": lambda n: b'{"records":[{"digest":"' + b"\xff" * n + b'"}]}',
    "zeros": bytes,
}


def _peak(job: Callable[[bytes], Any], content: bytes) -> int:
    gc.collect(1)  # The next collections come at the same moments; a full one takes long.
    tracemalloc.start()
    try:
        job(content)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_memory_grows_no_faster_than_a_hostile_index(make: Callable[[int], bytes]) -> None:
    count = 200
    small, large = make(count), make(count * _GROWTH)
    _peak(_read_or_refused, small)  # What is made once does not count.

    most = 1.5 * _GROWTH * _peak(_read_or_refused, small) + 100_000
    # The interpreter's table of texts grows by megabytes at once, but not twice in a row.
    assert _peak(_read_or_refused, large) <= most or _peak(_read_or_refused, large) <= most


@pytest.mark.parametrize("count", [5_000, pytest.param(20_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_index_is_refused_in_one_short_line_or_read(
    make: Callable[[int], bytes], count: int
) -> None:
    _read_or_refused(make(count))


@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    ("make", "rule"), [(_ring, "their links loop"), (_parent_ring, "their parents loop")]
)
def test_a_loop_is_found_however_long(make: Callable[[int], bytes], rule: str, count: int) -> None:
    # Its memory is that of the shorter loops, which grows no faster than they do.
    assert rule in _refused(make(count))


@pytest.mark.parametrize(
    "content",
    [
        b'{"layers":[{"parent":NaN}]}',
        b'{"layers":[{"parent":Infinity}]}',
        b'{"layers":[{"parent":-Infinity}]}',
        b'{"layers":[{"parent":1.5}]}',
        b'{"layers":[{"parent":1e400}]}',
        b'{"layers":[{"parent":true}]}',
        b'{"layers":[{"parent":"0"}]}',
        b'{"records":[{"digest":"\\ud800"}]}',
        b'{"records":[{"digest":"\xff"}]}',
        b"\xef\xbb\xbf{}",
        b'{"layers":[]} {"layers":[]}',
        b"{'layers':[]}",
        b'{"layers":[],}',
        b'{"layers":[]/**/}',
    ],
)
def test_what_is_no_json_or_no_number_is_refused(content: bytes) -> None:
    assert _refused(content).startswith("index: not a cache config in JSON")


@pytest.mark.parametrize("number", [2**31, 2**63, 2**64, 10**100, 10**4_000, -(2**63), -2])
@pytest.mark.parametrize(
    "place",
    [
        '{"layers":[{"blob":%(d)s,"parent":%(n)d,"annotations":{"diffID":%(d)s}}]}',
        '{"records":[{"digest":"a","layers":[{"layer":%(n)d}]}]}',
        '{"records":[{"digest":"a","chains":[{"layers":[%(n)d]}]}]}',
        '{"records":[{"digest":"a","inputs":[[{"link":%(n)d}]]}]}',
    ],
)
def test_a_number_that_leads_nowhere_is_refused_however_large(place: str, number: int) -> None:
    _refused((place % {"n": number, "d": _D.decode()}).encode())


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.sampled_from(["sha256:" + "0" * 64, "2024-01-01T00:00:00Z"]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "layers",
                        "records",
                        "blob",
                        "parent",
                        "annotations",
                        "diffID",
                        "size",
                        "mediaType",
                        "createdAt",
                        "digest",
                        "chains",
                        "inputs",
                        "link",
                        "selector",
                        "layer",
                    ]
                ),
                inner,
                max_size=6,
            )
        ),
        max_leaves=30,
    )
)
def test_any_json_made_of_our_own_words_is_read_or_refused(value: Any) -> None:
    _read_or_refused(msgspec.json.encode(value))


# Keys


@given(st.text(max_size=600) | st.sampled_from(list(NASTY.values())))
@example("index-a-1-" + "0" * 8 + "#1\n")
@example("buildkit-blob-1-sha256:" + "0" * 64 + "\n")
def test_a_key_is_ours_only_if_it_is_what_we_would_write(text: str) -> None:
    for key in (text, f"index-{text}-1-{hash_ref(Ref('r'))}#1", f"buildkit-blob-1-{text}"):
        parsed = parse_key(key)
        assert parsed is None or str(parsed) == key
        assert parsed is None or len(key) <= MAX_KEY_LENGTH


@pytest.mark.parametrize("number", ["0", "01", "+1", "-1", " 1", "1_0", "1e3", "١", "1" * 19, ""])  # noqa: RUF001
def test_a_number_that_no_builder_writes_makes_a_key_of_somebody_elses(number: str) -> None:
    assert parse_key(f"index-a-1-{'0' * 8}#{number}") is None


@given(st.text(max_size=300))
def test_a_scope_is_read_back_whatever_it_holds(scope: str) -> None:
    key = parse_key(f"index-{scope}-1-{'0' * 8}#12")

    assert isinstance(key, IndexKey)
    assert key.scope == scope


def test_a_key_that_could_be_split_in_many_ways_takes_no_longer_for_it() -> None:
    # A regular expression that tried all of them would not come to an end.
    assert parse_key("index-" + "-1-00000000" * 45 + "#") is None
    assert parse_key("index-" + "-1-00000000-sig" * 30 + "#0") is None
    assert not may_be_buildkits("index-" + "-1-00000000-sig" * 2_000)


# Tokens


def _token(payload: bytes) -> str:
    parts = [b'{"alg":"none"}', payload, b""]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@given(st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
@example(b'{"ac":"[]"}' + b" " * 1_000)
@example(b'{"ac":[]}')
@example(b'{"ac":"[]","ac":1}')
@example(b'{"ac":"[{\\"Scope\\":\\"\\\\ud800\\",\\"Permission\\":1}]"}')
@example(b'{"ac":"[{\\"Scope\\":\\"x\\",\\"Permission\\":1e999}]"}')
@example(b'{"ac":"[{\\"Scope\\":\\"x\\",\\"Permission\\":' + b"9" * 5_000 + b'}]"}')
@example(b'{"exp":' + b"9" * 5_000 + b',"ac":"[]"}')
@example(b'{"ac":NaN}')
def test_any_payload_is_a_runtime_token_or_refused_without_being_told(payload: bytes) -> None:
    for token in (_token(payload), payload.decode("latin-1"), f"a.{payload.hex()}.b"):
        try:
            access = read_access(token)
        except UsageError as error:
            _is_one_line(error)
        else:
            assert access.writable <= access.readable


@pytest.mark.parametrize("depth", [100, 1_000, 100_000])
def test_a_deep_token_is_refused(depth: int) -> None:
    for payload in (b"[" * depth, b'{"ac":' + b"[" * depth + b"]" * depth + b"}"):
        with pytest.raises(UsageError):
            read_access(_token(payload))


def test_a_token_of_many_megabytes_costs_memory_in_proportion() -> None:
    def claims(count: int) -> str:
        grants = msgspec.json.encode([{"Scope": "r", "Permission": 3}] * count).decode()
        return jwt.encode({"ac": grants}, "a key of the length that PyJWT asks for")

    def read(token: bytes) -> None:
        assert read_access(token.decode()).writable == {"r"}

    small, large = claims(2_000).encode(), claims(2_000 * _GROWTH).encode()
    assert _peak(read, large) <= 1.5 * _GROWTH * _peak(read, small) + 100_000


# Settings


@pytest.fixture
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in [name for name in os.environ if name.upper().startswith("MAINTAINER_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)


def _loads_or_refuses(path: Path) -> None:
    try:
        load_settings(path, {})
    except UsageError as error:
        _is_one_line(error)


@pytest.mark.usefixtures("_nothing_is_set")
@pytest.mark.parametrize("nasty", NASTY.values(), ids=NASTY)
def test_a_file_of_settings_may_hold_anything(nasty: str, tmp_path: Path) -> None:
    path = tmp_path / "maintainer.toml"
    quoted = msgspec.json.encode(nasty.encode("utf-8", "replace").decode()).decode()
    for content in (f"{quoted} = 1", f"grace = {quoted}", f"scopes = [{quoted}]", nasty):
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        _loads_or_refuses(path)


@pytest.mark.usefixtures("_nothing_is_set")
@pytest.mark.parametrize(
    "content",
    [
        b"a = " + b"[" * 100_000,
        b"a = " + b"{b = " * 2_000,
        b".".join([b"a"] * 2_000) + b" = 1",
        b"grace = " + b"9" * 5_000,
        b"rest_share = nan",
        b"rest_share = inf",
        b"quota = -inf",
        b"grace = nan",
        b"scopes = [[[]]]",
        b"database = 1",
        b"\xff\xfe",
        b"\x00",
    ],
)
def test_a_hostile_file_of_settings_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "maintainer.toml"
    path.write_bytes(content)

    with pytest.raises(UsageError) as told:
        load_settings(path, {})

    assert "\n" not in str(told.value)


@given(st.text(max_size=40) | st.sampled_from(list(NASTY.values())))
@example("9" * 5_000)
@example("*" * 10_000)
@example("*/1 " * 1_000)
@example("0-59/0 * * * *")
@example("0-999999999 * * * *")
def test_any_text_is_a_duration_or_none_and_a_cron_expression_or_none(text: str) -> None:
    for read in (parse_duration, check_cron):
        try:
            read(text)
        except ValueError as error:
            _is_one_line(error)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
@pytest.mark.parametrize("value", ["\x1b[2J", "9" * 5_000, "[" * 100_000, "{" * 10_000, "nan"])
@pytest.mark.usefixtures("_nothing_is_set")
def test_any_value_of_a_variable_is_a_setting_or_refused_in_one_line(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"MAINTAINER_{name.upper()}", value)
    try:
        load_settings(None, {})
    except UsageError as error:
        _is_one_line(error)
