"""Damage: it always changes what is there, and changes nothing else."""

import array
import json
import math
import random
import struct
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phases.base.strict_json import StrictJsonError
from phases.judge.measurements import alter, altered
from phases.judge.mutants import KINDS, damage, damage_png, damaged, kind_of
from phases.judge.noise import noise_copy
from phases.plan import schema

seeds = st.integers(0, 2**32).map(random.Random)


def test_the_plan_names_the_same_kinds():
    assert KINDS == schema.DAMAGE_KINDS


@pytest.mark.parametrize(
    ("path", "kind"),
    [("result.json", "measurements"), ("figures/a.json", "json"), ("artifacts/result.json", "json"),
     ("a.safetensors", "arrays"), ("f/a.png", "images"), ("report.md", "text"), ("a.svg", "text"),
     ("a.jsonl", "text"), ("a.txt", "text"), ("a.bin", None), ("json", None)],
)  # fmt: skip
def test_kinds(path, kind):
    assert kind_of(path) == kind


def test_damaged_holds_the_changed_files_of_one_kind_only():
    files = {
        "a.md": b"one\ntwo\n",
        "b.md": b"",
        "c.txt": b"\n\n",
        "d.json": b"{}",
        "e.json": b"[1]",
    }
    assert damaged("text", files, files.get, "seed") == {"a.md": b"one\n", "c.txt": b""}
    assert damaged("json", files, files.get, "seed") == {"e.json": b"[\n  11\n]"}
    assert damaged("arrays", files, files.get, "seed") == {}


def test_the_seed_decides():
    files = {"a.json": json.dumps(list(range(1000))).encode()}
    once, again, other = (damaged("json", files, files.get, seed) for seed in ("a", "a", "b"))
    assert once == again != other


#### text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (b"", b""),
        (b"one", b""),
        (b"one\n", b""),
        (b"1\n2\n3\n4", b"1\n3\n"),
        (b"# T\n\nwords\n\nseal\n", b"# T\n\n\nseal\n"),
    ],
)
def test_text(text, left):
    assert damage("text", text, random.Random(0)) == left


@settings(deadline=None)
@given(st.binary(), seeds)
def test_text_with_bytes_always_changes(data, rng):
    assert (damage("text", data, rng) != data) == (data != b"")


#### measurements and JSON leaves

numbers = st.integers(-(10**15), 10**15) | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | st.text(max_size=5)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
changes = st.sampled_from(["small", "large", "negative"])


@settings(deadline=None)
@given(values, changes)
def test_an_alteration_is_never_equal_and_stays_json(value, change):
    new = alter(value, change)
    assert json.dumps(new, allow_nan=False) != json.dumps(value)
    if isinstance(value, bool | int | float | str):
        assert new != value
        assert type(new) is type(value)


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
    met = [alter(value, change) for change in ("small", "large", "negative")]
    assert repr(met) == repr([small, large, negative])


@settings(deadline=None)
@given(st.floats(1e-300, 1e300) | st.floats(-1e300, -1e-300))
def test_small_is_five_percent_and_large_is_far(value):
    assert alter(value, "small") == pytest.approx(value * 1.05)
    assert abs(alter(value, "large") - value) >= 0.5
    assert abs(alter(value, "negative") - value) >= 0.5


def test_a_measurement_is_changed_consistently_and_alone():
    sample = {"value": 2.0, "unit": "nats", "stderr": 0.5, "n": 2, "values": [1.5, 2.5]}
    other = {"value": 3, "unit": "", "exact": True}
    result = json.dumps(
        {"question": "?", "measurements": {"loss": sample, "count": other}}
    ).encode()
    document = json.loads(altered(result, "small", "loss"))
    assert document == {
        "question": "?",
        "measurements": {
            "loss": {
                **sample,
                "value": 2.1,
                "stderr": 0.525,
                "values": pytest.approx([1.575, 2.625]),
            },
            "count": other,
        },
    }
    changed = json.loads(altered(result, "negative"))["measurements"]
    assert changed["count"] == {**other, "value": -31}
    assert changed["loss"] == {**sample, "value": -21.0, "stderr": 5.0, "values": [-16.0, -26.0]}
    assert sum(changed["loss"]["values"]) / 2 == changed["loss"]["value"], "a consistent lie"


@settings(deadline=None, max_examples=30)
@given(
    st.dictionaries(
        st.text(max_size=4), st.dictionaries(st.sampled_from(["value", "unit", "values"]), values)
    ),
    changes,
)
def test_every_measurement_changes_in_every_copy(measurements, change):
    result = json.dumps({"measurements": measurements}).encode()
    changed = json.loads(altered(result, change))["measurements"]
    assert changed.keys() == measurements.keys()
    assert all(json.dumps(changed[name]) != json.dumps(old) for name, old in measurements.items())


def test_measurements_that_cannot_be_read_are_an_error():
    for data in (b'{"measurements": {"a": NaN}}', b'{"measurements": []}', b"{"):
        with pytest.raises(StrictJsonError):
            damage("measurements", data, random.Random(0))
    assert damage("measurements", b"[]", random.Random(0)) == b"[]"


@settings(deadline=None)
@given(values, seeds)
def test_one_leaf_of_json_changes(value, rng):
    data = json.dumps(value).encode()
    new = json.loads(damage("json", data, rng))
    assert _differences(value, new) == min(1, _leaves(value))


def _leaves(value):
    if isinstance(value, dict | list):
        return sum(map(_leaves, value.values() if isinstance(value, dict) else value))
    return 1


def _differences(old, new):
    if isinstance(old, dict) and isinstance(new, dict):
        assert old.keys() == new.keys()
        return sum(_differences(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        assert len(old) == len(new)
        return sum(map(_differences, old, new))
    return repr(old) != repr(new)


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
    """name = (dtype, shape, raw bytes)"""
    header, body = {"__metadata__": {"made": "by hand"}}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [len(body), len(body) + len(raw)],
        }
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


def noised(dtype, numbers, seed=0):
    data = safetensors(x=(dtype, [len(numbers)], encode(dtype, numbers)))
    new = noise_copy(data, random.Random(seed))
    first = 8 + int.from_bytes(data[:8], "little")
    assert new[:first] == data[:first], "the header stays: names, dtypes, shapes, metadata"
    assert len(new) == len(data)
    assert new[first:] != data[first:]
    return decode(dtype, new[first:])


def moments(numbers):
    mean = math.fsum(numbers) / len(numbers)
    return mean, math.sqrt(math.fsum((x - mean) ** 2 for x in numbers) / len(numbers))


@pytest.mark.parametrize(
    ("dtype", "rtol"), [("F64", 1e-12), ("F32", 1e-6), ("F16", 2e-3), ("BF16", 1e-2)]
)
@pytest.mark.parametrize("count", [2, 1000, 65536, 70001])
def test_noise_keeps_mean_and_deviation_of_floats(dtype, rtol, count):
    rng = random.Random(count)
    old = decode(dtype, encode(dtype, [rng.uniform(-1, 3) for _ in range(count)]))
    new = noised(dtype, old)
    assert moments(new) == pytest.approx(moments(old), rel=rtol, abs=rtol)
    assert sum(a == b for a, b in zip(old, new, strict=True)) < max(2, count / 20)


@pytest.mark.parametrize("dtype", ["I64", "I32", "I16", "I8", "U8", "BOOL"])
@pytest.mark.parametrize("count", [3, 1000, 140_001])
def test_noise_keeps_mean_and_deviation_of_integers_exactly(dtype, count):
    rng = random.Random(count)
    old = [1, 0, *(rng.randint(0, 1 if dtype == "BOOL" else 100) for _ in range(count - 2))]
    new = noised(dtype, old)
    assert sorted(new) == sorted(old)
    different = sum(a != b for a, b in zip(old, new, strict=True))
    assert different > (0 if count == 3 else count / 3)


@pytest.mark.parametrize(
    "dtype", ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"]
)
@pytest.mark.parametrize("count", [1, 2, 7, 70_000])
@pytest.mark.parametrize("value", [0, 1])
def test_a_constant_tensor_changes_too(dtype, count, value):
    assert any(x != value for x in noised(dtype, [value] * count))


@pytest.mark.parametrize(
    ("dtype", "number"),
    [("U8", 255), ("I8", 127), ("I8", -128), ("I64", 2**63 - 1), ("F16", 65504.0), ("F16", -65504.0), ("F64", 1.7e308),
     ("F32", 3e38), ("F64", 5e-324), ("F16", 6e-8), ("F64", 0.1), ("F32", math.inf), ("F64", math.nan)],
)  # fmt: skip
@pytest.mark.parametrize("count", [1, 3])
def test_noise_stays_in_range_at_the_ends_of_a_dtype(dtype, number, count):
    assert all(map(math.isfinite, noised(dtype, [number] * count)))


def test_a_constant_is_not_moved_by_a_rounding_only():
    assert moments(noised("F64", [0.1] * 1000))[1] == pytest.approx(0.01)


@settings(deadline=None)
@given(
    st.sampled_from(
        ["F64", "F32", "F16", "BF16", "I64", "I16", "U8", "BOOL", "F8_E4M3", "U64", "I4?"]
    ),
    st.binary(max_size=64).map(lambda raw: raw[: len(raw) // 8 * 8]),
    st.integers(0, 100),
)
def test_every_tensor_with_elements_changes(dtype, raw, seed):
    data = safetensors(a=("F32", [1], b"\0\0\x80?"), x=(dtype, [len(raw)], raw))
    new = noise_copy(data, random.Random(seed))
    assert len(new) == len(data)
    assert (new[-len(raw) :] != raw) if raw else (new != data)


def test_ten_million_floats_take_seconds():
    raw = array.array("f", [1.0, 2.0]).tobytes() * 5_000_000
    data = safetensors(x=("F32", [10_000_000], raw))
    begin = time.process_time()
    noise_copy(data, random.Random(0))
    assert time.process_time() - begin < 10


BROKEN = [
    b"abc",
    struct.pack("<Q", 999) + b"{}",
    struct.pack("<Q", 2) + b"[]",
    struct.pack("<Q", 12) + b'{"x":{"a":1}',
    safetensors(x=("F32", [1], b"1234"))[:-1],
    safetensors(x=("F16", [1], b"123")),
    safetensors(x=("F64", [1], b"123")),
]


@pytest.mark.parametrize("data", BROKEN)
def test_what_is_no_safetensors_is_cut_like_text(data):
    assert (
        damage("arrays", data, random.Random(0)) == damage("text", data, random.Random(0)) != data
    )


#### images


def png(width, height, depth, colour, pixels, *, interlace=0, parts=1):
    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    packed = zlib.compress(pixels)
    step = -(-len(packed) // parts)
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    body = b"".join(chunk(b"IDAT", packed[i : i + step]) for i in range(0, len(packed), step))
    text = chunk(b"tEXt", b"Data\0sha256:00")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + text + body + chunk(b"IEND", b"")


def png_chunks(data):
    position, found = 8, []
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        name, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        assert int.from_bytes(
            data[position + 8 + length : position + 12 + length], "big"
        ) == zlib.crc32(name + body)
        found.append((name, body))
        position += 12 + length
    return found


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
    new = png_chunks(damage_png(png(width, height, depth, colour, pixels, parts=parts), rng))
    assert [name for name, _ in new] == [b"IHDR", b"tEXt", b"IDAT", b"IEND"]
    assert new[1] == (b"tEXt", b"Data\0sha256:00")
    changed = [
        i for i, (a, b) in enumerate(zip(pixels, zlib.decompress(new[2][1]), strict=True)) if a != b
    ]
    assert len(changed) == 1
    assert changed[0] % stride != 0, "the filter byte of a scan line is no pixel"


def test_interlaced_images_change_at_their_last_pixel():
    pixels = b"\0\1" * 3
    new = png_chunks(damage_png(png(2, 2, 8, 0, pixels, interlace=1), random.Random(0)))
    assert zlib.decompress(dict(new)[b"IDAT"]) == pixels[:-1] + b"\xfe"


@pytest.mark.parametrize(
    "data", [b"GIF89a", b"\x89PNG\r\n\x1a\n", png(1, 1, 8, 0, b""), png(1, 1, 8, 9, b"\0\1")[:-5]]
)
def test_what_is_no_png_is_cut_like_text(data):
    assert (
        damage("images", data, random.Random(0)) == damage("text", data, random.Random(0)) != data
    )


#### all kinds


@settings(deadline=None)
@given(st.sampled_from(["json", "arrays", "images", "text"]), st.binary(), seeds)
def test_arbitrary_bytes_never_crash_the_damage(kind, data, rng):
    assert isinstance(damage(kind, data, rng), bytes)


@settings(deadline=None)
@given(
    st.sampled_from(
        [*BROKEN, safetensors(x=("F32", [2], b"12345678")), png(2, 2, 8, 0, b"\0\1\2" * 2)]
    ),
    st.data(),
    seeds,
)
def test_mutants_of_real_files_never_crash_the_damage(data, draw, rng):
    mutant = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        mutant[draw.draw(st.integers(0, len(mutant) - 1))] = draw.draw(st.integers(0, 255))
    for kind in ("arrays", "images"):
        assert isinstance(damage(kind, bytes(mutant), rng), bytes)
