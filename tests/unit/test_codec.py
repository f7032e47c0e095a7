"""Reading and writing indexes: every rule for which an importer refuses one, and nothing else."""

import copy
import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintainer.cacheconfig import CacheConfig, Link, Record, Result, decode, encode, merge, prune
from maintainer.cacheconfig.codec import encoded_size
from maintainer.cacheconfig.model import NO_PARENT
from maintainer.cacheconfig.normal import normalize
from maintainer.cacheconfig.timestamps import Nanoseconds, parse_time
from maintainer.errors import InvalidIndexError
from tests.worlds import BLOBS, any_index, describe

CREATED_AT = "2026-08-01T10:20:30.123456789Z"
CREATED = parse_time(CREATED_AT)
ZERO_TIME = parse_time("0001-01-01T00:00:00Z")
Json = dict[str, Any]


def _layer(number: int = 0, *, parent: int = NO_PARENT, **changed: Any) -> Json:
    """Return a layer as JSON; a change to None leaves that annotation out."""
    annotations = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "diffID": BLOBS[number],
        "size": 100,
        "createdAt": CREATED_AT,
    } | changed
    kept = {name: value for name, value in annotations.items() if value is not None}
    return {"blob": BLOBS[number], "parent": parent, "annotations": kept}


def _record(digest: str = "sha256:a", **fields: Any) -> Json:
    return {"digest": digest} | fields


def _links(*sources: int) -> list[Json]:
    return [{"link": source} for source in sources]


def _index(*records: Json, layers: list[Any] | None = None) -> Json:
    layers = [_layer()] if layers is None else layers
    return {"layers": layers, "records": list(records)}


def _read(index: Any) -> CacheConfig:
    return decode(json.dumps(index).encode())


def _result(layer: int) -> Json:
    return {"layer": layer, "createdAt": CREATED_AT}


def _chain(*layers: int) -> Json:
    return {"layers": list(layers), "createdAt": CREATED_AT}


BAD_TIME = "createdAt is not an RFC 3339 time of the years 1 to 9999"


@pytest.mark.parametrize(
    ("index", "where", "rule"),
    [
        pytest.param(
            _index(layers=[_layer(), {"blob": BLOBS[1], "parent": 0}]),
            "layer 1",
            "it has no annotations",
            id="layer without annotations",
        ),
        pytest.param(
            _index(layers=[_layer() | {"annotations": None}]),
            "layer 0",
            "it has no annotations",
            id="layer whose annotations are null",
        ),
        pytest.param(
            _index(layers=[_layer(), _layer(1), _layer(2, diffID=None)]),
            "layer 2",
            "it has no diffID",
            id="layer without diffID",
        ),
        pytest.param(
            _index(layers=[_layer(diffID="")]),
            "layer 0",
            "it has no diffID",
            id="layer with an empty diffID",
        ),
        pytest.param(
            _index(layers=[_layer(diffID="sha256:abc")]),
            "layer 0",
            "its diffID is not a valid digest",
            id="layer whose diffID is cut short",
        ),
        pytest.param(
            _index(layers=[_layer() | {"blob": BLOBS[0].upper()}]),
            "layer 0",
            "its blob is not a valid digest",
            id="layer whose blob is in capitals",
        ),
        pytest.param(
            _index(layers=[{"annotations": _layer()["annotations"], "parent": NO_PARENT}]),
            "layer 0",
            "its blob is not a valid digest",
            id="layer without a blob",
        ),
        pytest.param(
            _index(layers=[_layer(), _layer(1, parent=2)]),
            "layer 1",
            "its parent is out of range",
            id="parent just behind the last layer",
        ),
        pytest.param(
            _index(layers=[_layer(parent=-2)]),
            "layer 0",
            "its parent is out of range",
            id="parent below none",
        ),
        pytest.param(
            _index(layers=[_layer(parent=2**70)]),
            "layer 0",
            "its parent is out of range",
            id="parent that is no 64-bit number",
        ),
        pytest.param(
            _index(layers=[_layer(size=2**63)]),
            "layer 0",
            "its size is not a 64-bit number",
            id="size that is just no 64-bit number",
        ),
        pytest.param(
            _index(layers=[_layer(size=-(2**63) - 1)]),
            "layer 0",
            "its size is not a 64-bit number",
            id="negative size that is just no 64-bit number",
        ),
        pytest.param(
            _index(layers=[_layer(createdAt="yesterday")]),
            "layer 0",
            BAD_TIME,
            id="layer created at no time",
        ),
        pytest.param(
            _index(layers=[_layer(createdAt="")]),
            "layer 0",
            BAD_TIME,
            id="layer whose time is empty",
        ),
        pytest.param(
            _index(layers=[_layer(createdAt="-")]),
            "layer 0",
            BAD_TIME,
            id="layer whose time is a dash",
        ),
        pytest.param(
            _index(layers=[_layer(parent=0)]),
            "layers",
            "their parents loop",
            id="layer that is its own parent",
        ),
        pytest.param(
            _index(layers=[{k: v for k, v in _layer().items() if k != "parent"}]),
            "layers",
            "their parents loop",
            id="missing parent is the first layer and not none",
        ),
        pytest.param(
            _index(layers=[_layer(0, parent=2), _layer(1, parent=0), _layer(2, parent=1)]),
            "layers",
            "their parents loop",
            id="layers that are each other's parents",
        ),
        pytest.param(
            _index(_record(), _record(layers=[_result(0), _result(1)])),
            "record 1",
            "a layer of a result is out of range",
            id="result just behind the last layer",
        ),
        pytest.param(
            _index(_record(layers=[_result(-1)])),
            "record 0",
            "a layer of a result is out of range",
            id="result of no layer",
        ),
        pytest.param(
            _index(_record(chains=[_chain(0, 1)])),
            "record 0",
            "a layer of a result is out of range",
            id="chain with a layer just behind the last",
        ),
        pytest.param(
            _index(_record(chains=[_chain(-1)])),
            "record 0",
            "a layer of a result is out of range",
            id="chain with a negative layer",
        ),
        pytest.param(
            _index(_record(layers=[{"createdAt": CREATED_AT}]), layers=[]),
            "record 0",
            "a layer of a result is out of range",
            id="result without a number is the first layer",
        ),
        pytest.param(
            _index(_record(layers=[_result(0) | {"createdAt": "soon"}])),
            "record 0",
            BAD_TIME,
            id="result created at no time",
        ),
        pytest.param(
            _index(_record(chains=[_chain(0) | {"createdAt": "-"}])),
            "record 0",
            BAD_TIME,
            id="chain created at no time",
        ),
        pytest.param(
            _index(_record(), _record(inputs=[_links(0), []])),
            "record 1, input 1",
            "it is an empty list",
            id="input that is an empty list",
        ),
        pytest.param(
            _index(_record(inputs=[None])),
            "record 0, input 0",
            "it is an empty list",
            id="input that is null",
        ),
        pytest.param(
            _index(_record(), _record(inputs=[_links(0), _links(0, 2)])),
            "record 1, input 1",
            "a link is out of range",
            id="link just behind the last record",
        ),
        pytest.param(
            _index(_record(), _record(inputs=[_links(-1)])),
            "record 1, input 0",
            "a link is out of range",
            id="negative link",
        ),
        pytest.param(
            _index(_record(inputs=[_links(0)])),
            "records",
            "their links loop",
            id="record that links to itself",
        ),
        pytest.param(
            _index(_record(inputs=[[{}]])),
            "records",
            "their links loop",
            id="link without a number is the first record",
        ),
        pytest.param(
            _index(_record(), _record(inputs=[_links(0, 2)]), _record(inputs=[_links(1)])),
            "records",
            "their links loop",
            id="records that link to each other",
        ),
        pytest.param(
            _index(_record("random:a"), _record(inputs=[_links(0)])),
            "record 1",
            "it links to a record whose digest begins with random:",
            id="link to a record that importers skip",
        ),
        pytest.param(
            _index(_record("random:a", inputs=[_links(1)]), _record("random:b")),
            "record 0",
            "it links to a record whose digest begins with random:",
            id="and from another one",
        ),
    ],
)
def test_an_index_that_an_importer_refuses_is_refused_with_the_place_and_the_rule(
    index: Json, where: str, rule: str
) -> None:
    with pytest.raises(InvalidIndexError) as caught:
        _read(index)

    assert (caught.value.where, caught.value.rule) == (where, rule)
    assert str(caught.value) == f"{where}: {rule}"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="list"),
        pytest.param(b'"{}"', id="text"),
        pytest.param(b"{}{}", id="two documents"),
        pytest.param(b'{"layers": [', id="half a document"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
        pytest.param('{"layers": []}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"layers": {}}', id="layers that are no list"),
        pytest.param(b'{"layers": [null]}', id="layer that is null"),
        pytest.param(b'{"layers": [{"parent": 0.5}]}', id="parent that is no whole number"),
        pytest.param(b'{"layers": [{"parent": 0.0}]}', id="parent that is written as a fraction"),
        pytest.param(b'{"layers": [{"parent": 1e0}]}', id="parent that has an exponent"),
        pytest.param(b'{"layers": [{"parent": "0"}]}', id="parent in quotes"),
        pytest.param(b'{"layers": [{"parent": true}]}', id="parent that is true"),
        pytest.param(b'{"layers": [{"parent": NaN}]}', id="NaN"),
        pytest.param(b'{"layers": [{"parent": -Infinity}]}', id="infinity"),
        pytest.param(b'{"layers": [{"parent": 1%s}]}' % (b"0" * 5_000), id="number of 5000 digits"),
        pytest.param(b'{"layers": [{"parent": -1%s}]}' % (b"0" * 5_000), id="and its negative"),
        pytest.param(b'{"records": [{"digest": 1}]}', id="digest that is a number"),
        pytest.param(b'{"records": [{"digest": "\xff"}]}', id="invalid UTF-8"),
        pytest.param(b'{"records": [{"digest": "\xed\xa0\x80"}]}', id="surrogate in UTF-8"),
        pytest.param(b'{"records": [{"digest": "\\ud800"}]}', id="lone high surrogate"),
        pytest.param(b'{"records": [{"digest": "\\udc00"}]}', id="lone low surrogate"),
        pytest.param(b'{"records": [{"digest": "\n"}]}', id="bare line end in a text"),
        pytest.param(b'{"records": [{"inputs": [[{"selector": 0}]]}]}', id="selector of a number"),
        pytest.param(b'{"other": %s%s}' % (b"[" * 10**6, b"]" * 10**6), id="deep nesting"),
        pytest.param(b'{"a":' * 10**5, id="deep nesting without an end"),
    ],
)
def test_what_is_no_cache_config_is_refused_as_a_whole(content: bytes) -> None:
    with pytest.raises(InvalidIndexError, match=r"^index: not a cache config in JSON") as caught:
        decode(content)

    assert caught.value.where == "index"
    assert "\n" not in str(caught.value)


def test_a_record_that_importers_skip_is_left_out() -> None:
    index = _index(
        _record("random:a", inputs=[_links(1)]),
        _record("sha256:a", layers=[_result(0)]),
        _record("sha256:b", inputs=[_links(1)]),
        _record("random:c"),
        _record("sha256:d", inputs=[_links(2)]),
    )

    read = _read(index)

    assert [record.digest for record in read.records] == ["sha256:a", "sha256:b", "sha256:d"]
    assert read.records[1].inputs == ((Link(0, ""),),)
    assert read.records[2].inputs == ((Link(1, ""),),)
    assert decode(encode(read)) == read


def test_go_leaves_out_what_is_zero() -> None:
    bare = {"layers": [{"blob": BLOBS[0], "parent": -1, "annotations": {"diffID": BLOBS[0]}}]}

    config = _read(bare | {"records": [{"layers": [{}], "chains": [{}]}, {"inputs": [[{}]]}]})

    layer = config.layers[0]
    assert (layer.media_type, layer.size, layer.created_at) == ("", 0, ZERO_TIME)
    assert config.records == (
        Record(
            digest="",
            results=(
                Result((0,), with_parents=True, created_at=ZERO_TIME),
                Result((), with_parents=False, created_at=ZERO_TIME),
            ),
            inputs=(),
        ),
        Record(digest="", results=(), inputs=((Link(0, ""),),)),
    )


@pytest.mark.parametrize(
    "content",
    [b"{}", b' {"layers": null, "records": null}\n', b'{"layers": [], "records": []}'],
)
def test_an_empty_index_is_valid_and_written_as_buildkit_does(content: bytes) -> None:
    assert decode(content) == CacheConfig()
    assert encode(decode(content)) == b"{}"


def test_lists_of_a_record_may_be_null() -> None:
    config = _read(_index(_record(layers=None, chains=None, inputs=None)))

    assert config.records == (Record("sha256:a", (), ()),)


def test_what_newer_builders_may_add_is_left_out() -> None:
    more = {"new": {"deep": [1.5, "\U0001f433"]}}
    layer = _layer(new=1) | more

    assert _read(_index(_record() | more, layers=[layer]) | more) == _read(_index(_record()))


def test_the_last_of_two_members_of_one_name_counts() -> None:
    assert decode(b'{"records": [{"digest": "a"}], "records": [{"digest": "b"}]}').records == (
        Record("b", (), ()),
    )


def test_the_largest_and_smallest_size_are_valid() -> None:
    layers = [_layer(size=2**63 - 1), _layer(1, size=-(2**63))]

    assert [layer.size for layer in _read(_index(layers=layers)).layers] == [2**63 - 1, -(2**63)]


def test_layers_and_records_may_stand_before_what_they_build_on() -> None:
    config = _read(
        _index(_record(inputs=[_links(1)]), _record(), layers=[_layer(0, parent=1), _layer(1)])
    )

    assert config.layers[0].parent == 1
    assert config.records[0].inputs == ((Link(1, ""),),)


def test_everything_that_an_index_says_is_read() -> None:
    config = _read(
        _index(
            _record(layers=[_result(1)], chains=[_chain(1, 0)]),
            _record("sha256:b", inputs=[[{"link": 0, "selector": "/src"}, {"link": 0}]]),
            layers=[_layer(), _layer(1, parent=0, size=7, mediaType="x/y", diffID=BLOBS[2])],
        )
    )

    upper = config.layers[0]  # In normal form: its digest is the smaller one.
    assert upper.blob == BLOBS[1]
    assert upper.parent == 1
    assert upper.diff_id == BLOBS[2]
    assert upper.media_type == "x/y"
    assert upper.size == 7
    assert upper.created_at == CREATED
    assert config.records == (
        Record(
            digest="sha256:a",
            results=(
                Result((0,), with_parents=True, created_at=CREATED),
                Result((0, 1), with_parents=False, created_at=CREATED),
            ),
            inputs=(),
        ),
        Record("sha256:b", (), ((Link(0, ""), Link(0, "/src")),)),
    )


def test_a_layer_that_no_result_needs_is_read_too() -> None:
    config = _read(_index(_record(layers=[_result(0)]), layers=[_layer(0), _layer(1)]))

    assert config.blobs == {BLOBS[0], BLOBS[1]}
    assert config.blobs == set(BLOBS[:2])
    assert config.result_count == 1


def test_an_index_is_written_as_go_does() -> None:
    config = CacheConfig(
        (describe(BLOBS[0], NO_PARENT, CREATED), describe(BLOBS[1], 0, CREATED)),
        (
            Record("a", (Result((1,), with_parents=True, created_at=CREATED),), ()),
            Record(
                "b",
                (Result((), with_parents=False, created_at=ZERO_TIME),),
                ((Link(0, ""), Link(0, "/src")),),
            ),
        ),
    )
    first, second = config.layers

    assert json.loads(encode(config)) == {
        "layers": [
            # No size: it is zero.
            {
                "blob": BLOBS[0],
                "parent": -1,
                "annotations": {
                    "mediaType": first.media_type,
                    "diffID": first.diff_id,
                    "createdAt": CREATED_AT,
                },
            },
            # No parent: it is the first layer.
            {
                "blob": BLOBS[1],
                "annotations": {
                    "mediaType": second.media_type,
                    "diffID": second.diff_id,
                    "size": 100,
                    "createdAt": CREATED_AT,
                },
            },
        ],
        "records": [
            {"digest": "a", "layers": [{"layer": 1, "createdAt": CREATED_AT}]},
            {
                "digest": "b",
                "chains": [{"layers": [], "createdAt": "0001-01-01T00:00:00Z"}],
                "inputs": [[{"link": 0}, {"link": 0, "selector": "/src"}]],
            },
        ],
    }


def test_a_zero_time_is_written_out_as_go_does() -> None:
    config = CacheConfig((describe(BLOBS[0], NO_PARENT, ZERO_TIME),))

    assert b'"createdAt":"0001-01-01T00:00:00Z"' in encode(config)


@given(any_index())
def test_reading_what_was_written_gives_the_same_index_in_normal_form(config: CacheConfig) -> None:
    normal = normalize(config)

    assert decode(encode(normal)) == normal


@given(any_index())
def test_the_size_of_an_index_is_that_of_what_is_written(config: CacheConfig) -> None:
    assert encoded_size(config) == len(encode(config))


_texts = st.text(st.characters(codec="utf-8"))
# Importers skip records with a random digest.
_digests = _texts.filter(lambda text: not text.startswith("random:"))
_times = st.integers(ZERO_TIME, 10**18).map(Nanoseconds)


@given(_digests, _texts, _times)
def test_any_text_and_time_survive_writing_and_reading(
    digest: str, selector: str, created_at: Nanoseconds
) -> None:
    results = (Result((), with_parents=False, created_at=created_at),)
    config = CacheConfig(
        (), (Record(digest, results, ()), Record(digest, (), ((Link(0, selector),),)))
    )

    assert decode(encode(config)) == config


def _is_read_or_refused(content: bytes) -> None:
    """Check that nothing but InvalidIndexError comes out, and that what is read can be written."""
    try:
        config = decode(content)
    except InvalidIndexError as error:
        assert "\n" not in str(error)  # noqa: PT017 - most of these are refused, some are not
        return
    assert decode(encode(config)) == config
    normalize(config)


@given(st.binary())
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    _is_read_or_refused(content)


_numbers = st.sampled_from([-(2**70), -2, -1, 0, 1, 2, 2**63, 10**30])
_leaves = st.none() | st.booleans() | _numbers | st.floats() | st.sampled_from(["", "-", BLOBS[0]])
_anything = st.recursive(_leaves, lambda inner: st.lists(inner, max_size=2), max_leaves=4)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return every place inside of a JSON value: what holds it, and under which name or number."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [(value, name) for name, _ in items] + [
        place for _, inner in items for place in _places(inner)
    ]


_WHOLE = _index(
    _record(layers=[_result(1)], chains=[_chain(1, 0)]),
    _record("sha256:b", inputs=[[{"link": 0, "selector": "/src"}], _links(0)]),
    layers=[_layer(), _layer(1, parent=0)],
)


@given(st.randoms(use_true_random=False), st.lists(_anything, min_size=1, max_size=3))
def test_an_index_with_anything_anywhere_is_read_or_refused(
    random: Random, changes: list[Any]
) -> None:
    wire: Any = [copy.deepcopy(_WHOLE)]
    for change in changes:
        holder, name = random.choice(_places(wire))
        if isinstance(holder, dict) and random.random() < 0.3:
            del holder[name]
        else:
            holder[name] = change

    _is_read_or_refused(json.dumps(wire[0]).encode())


@given(st.integers(0, 2**16), st.binary(max_size=3))
def test_a_damaged_index_is_read_or_refused(at: int, put: bytes) -> None:
    content = json.dumps(_WHOLE).encode()
    at %= len(content)

    _is_read_or_refused(content[:at] + put + content[at + 1 :])
    _is_read_or_refused(content[:at])


def test_what_the_damage_is_done_to_is_valid() -> None:
    assert _read(_WHOLE).result_count == 1


def test_what_indexes_have_in_common_is_in_memory_once() -> None:
    data = json.dumps({"layers": [_layer()], "records": [_record("sha256:common")]}).encode()

    one, other = decode(data), decode(data)

    assert one.layers[0].blob is other.layers[0].blob
    assert one.layers[0].diff_id is other.layers[0].diff_id
    assert one.layers[0].media_type is other.layers[0].media_type
    assert one.records[0].digest is other.records[0].digest


def _reversed(config: CacheConfig) -> CacheConfig:
    """Return the same index with its layers and records in the opposite order."""
    last_layer, last = len(config.layers) - 1, len(config.records) - 1
    layers = tuple(
        layer if layer.parent == NO_PARENT else layer.on(last_layer - layer.parent)
        for layer in reversed(config.layers)
    )
    records = tuple(
        Record(
            one.digest,
            tuple(
                Result(tuple(last_layer - at for at in r.layers), r.with_parents, r.created_at)
                for r in one.results
            ),
            tuple(tuple(Link(last - x.source, x.selector) for x in links) for links in one.inputs),
        )
        for one in reversed(config.records)
    )
    return CacheConfig(layers, records)


@given(any_index())
def test_an_index_of_which_nothing_is_lost_is_in_memory_once(config: CacheConfig) -> None:
    written = prune(merge([config]), config.blobs)

    read = decode(encode(_reversed(written)))

    assert read == written
    assert prune(read, read.blobs) is read
