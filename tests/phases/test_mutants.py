"""Mutations: each changes what is there, and nothing else."""

import array
import json
import math
import random
import re
import struct
import time
import tracemalloc
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from phases.base.strict_json import StrictJsonError
from phases.judge.measurements import Change, alter_result, alter_value
from phases.judge.mutants import (
    DAMAGES,
    FileKind,
    alter_file,
    alter_numbers,
    damage_file,
    kind_of,
    mutate_json,
    mutate_png,
    mutate_text,
)
from phases.judge.noise import mutate_arrays
from phases.judge.tables_and_sentences import alter_other_numbers, alter_sentences, alter_tables

seeds = st.integers(0, 2**32).map(random.Random)


PATHS = {
    "result.json": FileKind.JSON,
    "figures/a.json": FileKind.JSON,
    "a.safetensors": FileKind.ARRAYS,
    "f/a.png": FileKind.IMAGE,
    "report.md": FileKind.TEXT,
    "a.svg": FileKind.TEXT,
    "a.jsonl": FileKind.TEXT,
    "a.txt": FileKind.TEXT,
    "a.bin": FileKind.OTHER,
    "table.csv": FileKind.OTHER,
    "json": FileKind.OTHER,
}
ONE_PER_KIND = ("a.json", "a.safetensors", "a.png", "a.txt", "a.csv")


@pytest.mark.parametrize("path", PATHS)
def test_kinds(path):
    assert kind_of(path) == PATHS[path]


def test_the_damage_of_every_kind_has_words():
    assert {kind_of(path) for path in ONE_PER_KIND} == set(FileKind) == set(DAMAGES)


@settings(deadline=None)
@given(st.sampled_from(ONE_PER_KIND), st.binary(), seeds)
@example("a.csv", b"", random.Random(0))
@example("a.csv", b"\n \n", random.Random(0))
@example("a.json", b"[]", random.Random(0))
@example("a.json", b"{}", random.Random(0))
@example("a.safetensors", b"", random.Random(0))
def test_whatever_a_file_holds_its_damage_changes_it_and_is_never_empty(path, data, rng):
    damaged = damage_file(path, data)
    assert damaged == damage_file(path, data), "the same damage every time"
    assert b"" != damaged != data
    assert alter_file(path, data, rng) != data


def test_files_of_no_known_kind_are_cut_in_half():
    assert damage_file("a.csv", b"a,b\n1,2\n") == b"a,b\n"
    assert damage_file("a.bin", b"\x07") == b"\x06"
    assert damage_file("a.csv", b"") == b"?"


@pytest.mark.parametrize(
    ("path", "data", "expected"),
    [
        ("a.csv", b"step,x1\n1,0.25\n", b"step,x11\n11,1.25\n"),
        ("a.csv", b"M\xfcller;3\n", b"M\xfcller;31\n"),
        ("a.md", b"| a | 0.0 |\n| b | 14 |\n", b"| a | 1.0 |\n| b | 141 |\n"),
        ("a.jsonl", b'{"x1": 2}\n{"x1": 0.5}\n', b'{"x1": 21}\n{"x1": 6.0}\n'),
        ("a.json", b'{"x1": [2, "3"]}', b'{"x1": [21, "3"]}'),
        ("a.json", b'{"loss": [1.0, NaN], "n": 3}', b'{"loss": [11.0, NaN], "n": 31}'),
        ("a.json", b'{"a": 1, "a": 0}', b'{"a": 11, "a": 1}'),
        ("a.json", b'["7 days"]', b'["71 days"]'),
    ],
)
def test_every_number_is_altered_and_the_file_stays_readable(path, data, expected):
    assert alter_file(path, data, random.Random(0)) == expected


def test_the_seed_decides_what_is_altered_where_there_is_no_number():
    data = bytes(range(128, 256)) + b"\0"
    first, second, other = [alter_file("a.bin", data, random.Random(seed)) for seed in "aab"]
    assert first == second != other


@pytest.mark.parametrize("piece", [b"x", b"word ", b"1,2\n"], ids=["a word", "a line", "lines"])
def test_a_large_file_takes_little_memory(piece):
    data = piece * (4_000_000 // len(piece))
    tracemalloc.start()
    mutate_text(data)
    alter_file("a.csv", data, random.Random(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * len(data)


#### text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", b"?"),
        (b" \n", b" \n?"),
        (b"1\n2\n3\n4", b"1\n3\n"),
        (b"# T\n\nwords\n\nseal\n", b"# T\n\n\nseal\n"),
        (b"accuracy 0.93\n", b"accuracy "),
        (b"\n three words here\n", b"\n three here\n"),
        (b"done\n", b"dn\n"),
        (b"x", b"y"),
    ],
)
def test_text(text, expected):
    assert mutate_text(text) == expected


@settings(deadline=None)
@given(st.text(alphabet="ab0129,.\n é"))
def test_other_numbers_are_as_many_and_each_is_another(text):
    altered = alter_numbers(text.encode()).decode()
    pattern = re.compile(r"[0-9]+(?:\.[0-9]+)?")
    assert pattern.sub("#", altered) == pattern.sub("#", text)
    for old, new in zip(pattern.findall(text), pattern.findall(altered), strict=True):
        assert float(old) != float(new)


#### measurements and JSON leaves

numbers = st.integers(-(10**15), 10**15) | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | st.text(max_size=5)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
changes = st.sampled_from(Change)
fields = st.sampled_from(["value", "unit", "values"])


@settings(deadline=None)
@given(values, changes)
def test_an_alteration_is_never_equal_and_stays_json(value, change):
    altered = alter_value(value, change)
    assert json.dumps(altered, allow_nan=False) != json.dumps(value)
    if isinstance(value, bool | int | float | str):
        assert altered != value
        assert type(altered) is type(value)


@pytest.mark.parametrize(
    ("value", "small", "large", "negative"),
    [
        (2.0, 2.1, 21.0, -21.0),
        (-2.0, -2.1, -19.0, 19.0),
        (0.0, 0.05, 1.0, -1.0),
        (7, 8, 71, -71),
        (100, 105, 1001, -1001),
        (-100, -105, -999, 999),
        (0, 1, 1, -1),
        (True, False, False, False),
        ("adam", "adam?", "adam?", "adam?"),
        (None, 1, 1, 1),
        ([1.0, [2.0]], [1.05, [2.1]], [11.0, [21.0]], [-11.0, [-21.0]]),
        ([], [1], [1], [1]),
    ],
)
def test_alterations_as_specified(value, small, large, negative):
    altered = [alter_value(value, change) for change in Change]
    assert repr(altered) == repr([small, large, negative])


@settings(deadline=None)
@given(st.floats(1e-300, 1e300) | st.floats(-1e300, -1e-300))
def test_small_is_five_percent_and_large_is_far(value):
    assert alter_value(value, Change.SMALL) == pytest.approx(value * 1.05)
    assert abs(alter_value(value, Change.LARGE) - value) >= 0.5
    assert abs(alter_value(value, Change.NEGATIVE) - value) >= 0.5


def test_a_measurement_is_changed_consistently_and_alone():
    sample = {"value": 2.0, "unit": "nats", "stderr": 0.5, "n": 2, "values": [1.5, 2.5]}
    other = {"value": 3, "unit": "", "exact": True}
    document = {"question": "?", "measurements": {"loss": sample, "count": other}}
    result = json.dumps(document).encode()
    # One measurement alone.
    values = pytest.approx([1.575, 2.625])
    loss = {**sample, "value": 2.1, "stderr": 0.525, "values": values}
    altered = json.loads(alter_result(result, Change.SMALL, "loss"))
    assert altered == {"question": "?", "measurements": {"loss": loss, "count": other}}
    # All of them.
    changed = json.loads(alter_result(result, Change.NEGATIVE))["measurements"]
    assert changed["count"] == {**other, "value": -31}
    assert changed["loss"] == {**sample, "value": -21.0, "stderr": 5.0, "values": [-16.0, -26.0]}
    assert sum(changed["loss"]["values"]) / 2 == changed["loss"]["value"], "consistent"


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.text(max_size=4), st.dictionaries(fields, values)), changes)
def test_every_measurement_changes(measurements, change):
    result = json.dumps({"measurements": measurements}).encode()
    changed = json.loads(alter_result(result, change))["measurements"]
    assert changed.keys() == measurements.keys()
    for name, measurement in measurements.items():
        assert json.dumps(changed[name]) != json.dumps(measurement)


def test_measurements_that_cannot_be_read_are_an_error():
    for data in (b'{"measurements": {"a": NaN}}', b"{"):
        with pytest.raises(StrictJsonError):
            alter_result(data, Change.LARGE)


@settings(deadline=None)
@given(values, seeds)
def test_every_leaf_of_json_is_damaged(value, rng):
    data = json.dumps(value).encode()
    assert json.loads(mutate_json(data, rng)) == alter_value(json.loads(data), Change.LARGE)


#### arrays

CODES = {
    "F64": "d",
    "F32": "f",
    "I64": "q",
    "I32": "i",
    "I16": "h",
    "I8": "b",
    "U8": "B",
    "BOOL": "B",
}


def safetensors(**tensors):
    """Write a file of tensors; each is name=(dtype, shape, raw bytes)."""
    header = {"__metadata__": {"made": "by hand"}}
    body = b""
    for name, (dtype, shape, raw) in tensors.items():
        offsets = [len(body), len(body) + len(raw)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        body += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def encode(dtype, numbers):
    if dtype == "F16":
        return struct.pack(f"<{len(numbers)}e", *numbers)
    if dtype == "BF16":
        return b"".join(struct.pack("<f", number)[2:] for number in numbers)
    return array.array(CODES[dtype], numbers).tobytes()


def decode(dtype, raw):
    if dtype == "F16":
        return list(struct.unpack(f"<{len(raw) // 2}e", raw))
    if dtype == "BF16":
        return [struct.unpack("<f", b"\0\0" + raw[i : i + 2])[0] for i in range(0, len(raw), 2)]
    return array.array(CODES[dtype], raw).tolist()


def mutate_tensor(dtype, numbers, seed=0):
    data = safetensors(x=(dtype, [len(numbers)], encode(dtype, numbers)))
    mutated = mutate_arrays(data, random.Random(seed))
    data_start = 8 + int.from_bytes(data[:8], "little")
    assert mutated[:data_start] == data[:data_start], "the header stays"
    assert len(mutated) == len(data)
    assert mutated[data_start:] != data[data_start:]
    return decode(dtype, mutated[data_start:])


def moments(numbers):
    mean = math.fsum(numbers) / len(numbers)
    return mean, math.sqrt(math.fsum((x - mean) ** 2 for x in numbers) / len(numbers))


@pytest.mark.parametrize(
    ("dtype", "rtol"), [("F64", 1e-12), ("F32", 1e-6), ("F16", 2e-3), ("BF16", 1e-2)]
)
@pytest.mark.parametrize("count", [2, 1000, 65536, 70001])
def test_noise_keeps_mean_and_standard_deviation_of_floats(dtype, rtol, count):
    rng = random.Random(count)
    numbers = decode(dtype, encode(dtype, [rng.uniform(-1, 3) for _ in range(count)]))
    noise = mutate_tensor(dtype, numbers)
    assert moments(noise) == pytest.approx(moments(numbers), rel=rtol, abs=rtol)
    assert sum(a == b for a, b in zip(numbers, noise, strict=True)) < max(2, count / 20)


@pytest.mark.parametrize("dtype", ["I64", "I32", "I16", "I8", "U8", "BOOL"])
@pytest.mark.parametrize("count", [3, 1000, 140_001])
def test_noise_keeps_mean_and_standard_deviation_of_integers_exactly(dtype, count):
    rng = random.Random(count)
    largest = 1 if dtype == "BOOL" else 100
    numbers = [1, 0, *(rng.randint(0, largest) for _ in range(count - 2))]
    noise = mutate_tensor(dtype, numbers)
    assert sorted(noise) == sorted(numbers)
    different = sum(a != b for a, b in zip(numbers, noise, strict=True))
    assert different > (0 if count == 3 else count / 3)


@pytest.mark.parametrize(
    "dtype", ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"]
)
@pytest.mark.parametrize("count", [1, 2, 7, 70_000])
@pytest.mark.parametrize("value", [0, 1])
def test_a_constant_tensor_changes_too(dtype, count, value):
    assert any(x != value for x in mutate_tensor(dtype, [value] * count))


@pytest.mark.parametrize(
    ("dtype", "number"),
    [("U8", 255), ("BOOL", 255), ("I8", 127), ("I8", -128), ("I64", 2**63 - 1), ("F16", 65504.0),
     ("F16", -65504.0), ("F64", 1.7e308), ("F32", 3e38), ("F64", 5e-324), ("F16", 6e-8),
     ("F64", 0.1), ("F32", math.inf), ("F64", math.nan)],
)  # fmt: skip
@pytest.mark.parametrize("count", [1, 3])
def test_noise_stays_in_range_at_the_ends_of_a_dtype(dtype, number, count):
    assert all(map(math.isfinite, mutate_tensor(dtype, [number] * count)))


def test_a_constant_is_not_moved_by_a_rounding_only():
    assert moments(mutate_tensor("F64", [0.1] * 1000))[1] == pytest.approx(0.01)


DTYPES = ["F64", "F32", "F16", "BF16", "I64", "I16", "U8", "BOOL", "F8_E4M3", "U64", "I4?"]
whole_elements = st.binary(max_size=64).map(lambda raw: raw[: len(raw) // 8 * 8])


@settings(deadline=None)
@given(st.sampled_from(DTYPES), whole_elements, st.integers(0, 100))
@example("F32", b"\0\0\0\0\0\0\x81\x7f", 0)  # a signalling NaN
@example("BF16", b"\0\0\0\0\0\0\x81\x7f", 0)
def test_every_tensor_with_elements_changes(dtype, raw, seed):
    data = safetensors(a=("F32", [1], b"\0\0\x80?"), x=(dtype, [len(raw)], raw))
    mutated = mutate_arrays(data, random.Random(seed))
    assert len(mutated) == len(data)
    if raw:
        assert mutated[-len(raw) :] != raw
    else:
        assert mutated != data


def test_ten_million_floats_take_seconds():
    raw = array.array("f", [1.0, 2.0]).tobytes() * 5_000_000
    data = safetensors(x=("F32", [10_000_000], raw))
    begin = time.process_time()
    mutate_arrays(data, random.Random(0))
    assert time.process_time() - begin < 10


NOT_SAFETENSORS = [
    b"abc",
    struct.pack("<Q", 999) + b"{}",
    struct.pack("<Q", 2) + b"[]",
    struct.pack("<Q", 12) + b'{"x":{"a":1}',
    safetensors(x=("F32", [1], b"1234"))[:-1],
    safetensors(x=("F16", [1], b"123")),
    safetensors(x=("F64", [1], b"123")),
]


@pytest.mark.parametrize("data", NOT_SAFETENSORS)
def test_a_file_that_is_no_safetensors_is_mutated_like_text(data):
    assert_mutated_like_text("a.safetensors", data)


def assert_mutated_like_text(path, data):
    assert damage_file(path, data) == mutate_text(data) != data


#### images


def png(width, height, *, depth, colour, pixels, interlace=0, parts=1):
    def chunk(name, body):
        checksum = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + checksum

    packed = zlib.compress(pixels)
    step = -(-len(packed) // parts)
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    body = b"".join(chunk(b"IDAT", packed[i : i + step]) for i in range(0, len(packed), step))
    text = chunk(b"tEXt", b"Data\0sha256:00")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + text + body + chunk(b"IEND", b"")


def png_chunks(data):
    position = 8
    chunks = []
    while position < len(data):
        body_start = position + 8
        body_end = body_start + int.from_bytes(data[position : position + 4], "big")
        name = data[position + 4 : body_start]
        body = data[body_start:body_end]
        checksum = int.from_bytes(data[body_end : body_end + 4], "big")
        assert checksum == zlib.crc32(name + body)
        chunks.append((name, body))
        position = body_end + 4
    return chunks


@settings(deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([(1, 0), (8, 0), (16, 0), (8, 2), (4, 3), (8, 4), (8, 6)]),
    st.integers(1, 3),
    seeds,
)
def test_one_byte_of_pixel_data_changes(width, height, form, parts, rng):
    depth, colour = form
    stride = 1 + (width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] + 7) // 8
    pixels = b"".join(b"\0" + rng.randbytes(stride - 1) for _ in range(height))
    data = png(width, height, depth=depth, colour=colour, pixels=pixels, parts=parts)
    chunks = png_chunks(mutate_png(data, rng))
    assert [name for name, _ in chunks] == [b"IHDR", b"tEXt", b"IDAT", b"IEND"]
    assert chunks[1] == (b"tEXt", b"Data\0sha256:00")
    mutated = zlib.decompress(chunks[2][1])
    assert len(mutated) == len(pixels)
    changed = [i for i in range(len(pixels)) if pixels[i] != mutated[i]]
    assert len(changed) == 1
    assert changed[0] % stride != 0, "the filter byte of a scan line is no pixel"


def test_interlaced_images_change_at_their_last_pixel():
    pixels = b"\0\1" * 3
    data = png(2, 2, depth=8, colour=0, pixels=pixels, interlace=1)
    chunks = png_chunks(mutate_png(data, random.Random(0)))
    assert zlib.decompress(dict(chunks)[b"IDAT"]) == pixels[:-1] + b"\xfe"


NOT_PNG = [
    b"GIF89a",
    b"\x89PNG\r\n\x1a\n",
    png(1, 1, depth=8, colour=0, pixels=b""),
    png(1, 1, depth=8, colour=9, pixels=b"\0\1")[:-5],
]


@pytest.mark.parametrize("data", NOT_PNG)
def test_a_file_that_is_no_png_is_mutated_like_text(data):
    assert_mutated_like_text("a.png", data)


#### all kinds

FILES = [
    *NOT_SAFETENSORS,
    safetensors(x=("F32", [2], b"12345678")),
    png(2, 2, depth=8, colour=0, pixels=b"\0\1\2" * 2),
]


@settings(deadline=None)
@given(st.sampled_from(FILES), st.data(), seeds)
def test_corrupted_files_never_crash_a_mutation(file, data, rng):
    corrupted = bytearray(file)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(corrupted) - 1))
        corrupted[position] = data.draw(st.integers(0, 255))
    for path in ("a.safetensors", "a.png"):
        assert alter_file(path, bytes(corrupted), rng) != bytes(corrupted)


#### tables and sentences of a result.json


def test_every_number_of_a_table_changes():
    tables = [{"title": "Runs", "rows": [["first", 0.5, 3, True, None], ["9.50 s", "1", [2]]]}]
    result = json.dumps({"measurements": {"a": 1}, "tables": tables, "findings": ["1 is one"]})
    altered = json.loads(alter_tables(result.encode()))
    assert altered["tables"] == [
        {"title": "Runs", "rows": [["first", 6.0, 31, True, None], ["91.50 s", "11", [21]]]}
    ]
    assert altered["measurements"] == {"a": 1}
    assert altered["findings"] == ["1 is one"]


def test_every_sentence_changes_and_keeps_its_words():
    document = {
        "experiment": "name",
        "findings": ["loss 0.50 on 3 of 4", "no number here"],
        "environment": {"cpu": "Some CPU 9"},
        "tables": [{"title": "Two words"}],
        "measurements": {"a": {"value": 1, "unit": "per day"}},
    }
    altered = json.loads(alter_sentences(json.dumps(document).encode()))
    assert altered == {**document, "findings": ["loss 1.50 on 31 of 41", "here number no"]}


@pytest.mark.parametrize("result", [b"[]", b"{}", b'{"tables": [], "title": "word"}'])
def test_without_tables_or_sentences_nothing_changes(result):
    assert alter_tables(result) == alter_sentences(result) == alter_other_numbers(result) == result


def test_every_other_number_changes():
    document = {
        "summary": {"loss": 0.5, "steps": [1, 2], "ok": True, "note": "3 steps"},
        "measurements": {"a": {"value": 1}},
        "tables": [[4]],
        "environment": {"seed": 5},
    }
    altered = json.loads(alter_other_numbers(json.dumps(document).encode()))
    summary = {"loss": 6.0, "steps": [11, 21], "ok": True, "note": "3 steps"}
    assert altered == {**document, "summary": summary}
