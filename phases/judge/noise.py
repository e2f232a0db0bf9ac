"""Noise in place of arrays: a .safetensors file with the same header and other numbers, without numpy.

Format: 8 bytes length of the header (little-endian), the header as JSON
({name: {"dtype", "shape", "data_offsets": [begin, end]}}), then the raw little-endian data
(https://github.com/huggingface/safetensors#format).

A hundred million numbers must take seconds: one block of gaussians is drawn per file and laid like tiles, each turned
by a random offset, and mean and deviation of a large tensor are those of numbers spread evenly over it.
"""

from __future__ import annotations

import array
import itertools
import math
import operator
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from phases.base import strict_json

BLOCK = 1 << 16  # numbers in one tile
MAX_HEADER = 100_000_000  # bytes; the format's own limit

_FLOAT_LIMITS = {"F64": 1.7e308, "F32": 3.4e38, "BF16": 3.38e38, "F16": 65504.0}
_INTEGER_CODES = {
    "I64": "q",
    "I32": "i",
    "I16": "h",
    "I8": "b",
    "U64": "Q",
    "U32": "I",
    "U16": "H",
    "U8": "B",
}


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    start: int  # byte in the file
    stop: int


def noise_copy(data: bytes, rng: random.Random) -> bytes:
    """The same file with each tensor replaced by noise; never with an unchanged tensor, unless it has no elements.

    Floats: gaussian noise of the tensor's mean and deviation. Integers, booleans and dtypes unknown here (by their
    bytes): the tensor's own values in random order, which have the same mean and deviation. A constant tensor gets a
    spread of a tenth of its value, or moves by one.

    Raises:
        ValueError: not a .safetensors file.
    """
    tensors = list(_tensors(data))
    longest = max((tensor.stop - tensor.start for tensor in tensors), default=0)
    block = _standardised([rng.gauss(0.0, 1.0) for _ in range(min(BLOCK, longest))])
    copy = bytearray(data)
    for tensor in tensors:
        raw = data[tensor.start : tensor.stop]
        make = _gaussian if tensor.dtype in _FLOAT_LIMITS else _reordered
        copy[tensor.start : tensor.stop] = make(raw, tensor.dtype, block, rng)
    return bytes(copy)


def _tensors(data: bytes) -> Iterator[_Tensor]:
    first = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or first > len(data):
        msg = f"not a .safetensors file: {len(data)} bytes, header up to byte {first}"
        raise ValueError(msg)
    header = strict_json.loads(data[8:first], max_bytes=MAX_HEADER)
    if not isinstance(header, dict):
        msg = "not a .safetensors file: the header is not an object"
        raise ValueError(msg)  # noqa: TRY004 - the file is wrong, not an argument's type
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        match entry:
            case {"dtype": str(dtype), "data_offsets": [int(begin), int(end)]} if (
                0 <= begin <= end <= len(data) - first
            ):
                yield _Tensor(dtype, first + begin, first + end)
            case _:
                msg = f"not a .safetensors file: tensor {name!r} has no dtype and data_offsets within the file"
                raise ValueError(msg)


#### floats


def _gaussian(raw: bytes, dtype: str, block: Sequence[float], rng: random.Random) -> bytes:
    values = _decode(raw, dtype)
    if not values:
        return raw
    mean, deviation = _moments(values[:: len(values) // BLOCK or 1])
    # The mean of a constant tensor can be off by one rounding: that is no deviation. A single number moves by -spread,
    # towards zero and so away from the dtype's limit.
    spread = deviation if deviation > 1e-12 * abs(mean) else abs(mean) / 10 or 1.0
    spread = -spread if mean > 0 else spread
    limit = _FLOAT_LIMITS[dtype]

    def encoded(tile: Sequence[float]) -> bytes:
        return _encode([max(-limit, min(limit, mean + spread * z)) for z in tile], dtype)

    for again in itertools.count():
        noise = _tiled(len(values), block, encoded, rng)
        if noise != raw:
            break
        # Two numbers can only change places, and a small spread can be lost in the dtype's rounding.
        spread = -spread if again % 2 == 0 else -10 * spread
    return noise


def _tiled(
    count: int,
    block: Sequence[float],
    encoded: Callable[[Sequence[float]], bytes],
    rng: random.Random,
) -> bytes:
    """`count` numbers: whole tiles, each turned by a random offset, and a standardised piece for the rest."""
    whole, rest = divmod(count, BLOCK)
    pieces = []
    if whole:
        tile = encoded(block)
        width = len(tile) // BLOCK
        for _ in range(whole):
            turn = rng.randrange(BLOCK) * width
            pieces.append(tile[turn:] + tile[:turn])
    if rest:
        begin = rng.randrange(len(block) - rest + 1)
        pieces.append(encoded(_standardised(block[begin : begin + rest])))
    return b"".join(pieces)


def _standardised(numbers: Sequence[float]) -> list[float]:
    """Shifted and scaled to mean 0 and deviation 1 exactly; a single number becomes 1."""
    if not numbers:
        return []
    mean, deviation = _moments(numbers)
    return [(x - mean) / deviation for x in numbers] if deviation else [1.0] * len(numbers)


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Mean and deviation (ddof 0) of the finite values; 0 and 1 where they cannot be told."""
    try:
        mean = math.fsum(values) / len(values)
        if not math.isfinite(mean):
            values = [x for x in values if math.isfinite(x)] or [0.0]
            mean = math.fsum(values) / len(values)
        deviation = math.sqrt(math.fsum((x - mean) * (x - mean) for x in values) / len(values))
    except (OverflowError, ValueError):  # sums beyond 1e308; infinities of both signs
        return 0.0, 1.0
    return (mean, deviation) if math.isfinite(deviation) else (0.0, 1.0)


def _decode(raw: bytes, dtype: str) -> Sequence[float]:
    if dtype == "F16":
        return struct.unpack(f"<{len(raw) // 2}e", raw)
    if dtype == "BF16":  # the upper half of a 32-bit float
        wide = bytearray(2 * len(raw))
        wide[2::4], wide[3::4] = raw[0::2], raw[1::2]
        return array.array("f", bytes(wide))
    return array.array("d" if dtype == "F64" else "f", raw)


def _encode(values: Sequence[float], dtype: str) -> bytes:
    if dtype == "F16":
        return struct.pack(f"<{len(values)}e", *values)
    if dtype == "BF16":
        # Cutting the lower half rounds towards zero by half a step on average; the factor puts that half step back.
        wide = array.array("f", [x * (1 + 2.0**-9) for x in values]).tobytes()
        narrow = bytearray(len(wide) // 2)
        narrow[0::2], narrow[1::2] = wide[2::4], wide[3::4]
        return bytes(narrow)
    return array.array("d" if dtype == "F64" else "f", values).tobytes()


#### integers, booleans, everything else


def _reordered(raw: bytes, dtype: str, _block: Sequence[float], rng: random.Random) -> bytes:
    numbers = array.array(_INTEGER_CODES.get(dtype, "B"), raw)
    if not numbers:
        return raw
    order: Any = list
    if len(numbers) >= BLOCK:
        order = operator.itemgetter(
            *rng.sample(range(BLOCK), BLOCK)
        )  # one order for all whole blocks: it is quick
    starts = list(range(0, len(numbers), BLOCK))
    rng.shuffle(starts)
    mixed = array.array(numbers.typecode)
    for start in starts:
        piece = numbers[start : start + BLOCK].tolist()
        if len(piece) < BLOCK:
            rng.shuffle(piece)
        mixed.fromlist(piece if len(piece) < BLOCK else list(order(piece)))
    if mixed == numbers:
        mixed = numbers[1:] + numbers[:1]
    if mixed == numbers:  # turned by one and still the same: all elements are equal
        mixed = _moved_by_one(numbers, dtype)
    return mixed.tobytes()


def _moved_by_one(numbers: array.array[int], dtype: str) -> array.array[int]:
    """A constant tensor: every second element, the first among them, one up; one down at the end of the range."""
    last = 1 if dtype == "BOOL" else (1 << (8 * numbers.itemsize - numbers.typecode.islower())) - 1
    step = -1 if numbers[0] == last else 1
    return array.array(
        numbers.typecode, [x + step if i % 2 == 0 else x for i, x in enumerate(numbers)]
    )
