"""Noise in place of arrays: a .safetensors file with the same header and other numbers.

Format: 8 bytes length of the header (little-endian), the header as JSON
({name: {"dtype", "shape", "data_offsets": [begin, end]}}), then the raw little-endian data
(https://github.com/huggingface/safetensors#format).

A hundred million numbers must take seconds, without numpy. So one block of gaussians is drawn per
file and repeated like tiles, each rotated by a random offset; mean and standard deviation of a
large tensor are those of a sample spread evenly over it.
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
"""dtype -> type code of `array.array`."""


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    start: int  # byte in the file
    stop: int


def mutate_arrays(data: bytes, rng: random.Random) -> bytes:
    """Return the same file with each tensor replaced by noise.

    Every tensor changes, unless it has no elements. Floats become gaussian noise of the tensor's
    mean and standard deviation. Integers, booleans and dtypes unknown here (by their bytes) become
    the tensor's own values in random order, which have the same mean and standard deviation. A
    constant tensor gets a spread of a tenth of its value, or moves by one.

    Raises:
        ValueError: not a .safetensors file.
    """
    tensors = list(_read_tensors(data))
    longest = max((tensor.stop - tensor.start for tensor in tensors), default=0)
    block = _standardise([rng.gauss(0.0, 1.0) for _ in range(min(BLOCK, longest))])
    mutated = bytearray(data)
    for tensor in tensors:
        raw = data[tensor.start : tensor.stop]
        if tensor.dtype in _FLOAT_LIMITS:
            noise = _make_gaussians(raw, tensor.dtype, block, rng)
        else:
            noise = _shuffle(raw, tensor.dtype, rng)
        mutated[tensor.start : tensor.stop] = noise
    return bytes(mutated)


def _read_tensors(data: bytes) -> Iterator[_Tensor]:
    """Yield the tensors that the header lists."""
    # 1. The header.
    data_start = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or data_start > len(data):
        message = f"not a .safetensors file: {len(data)} bytes, header up to byte {data_start}"
        raise ValueError(message)
    header = strict_json.loads(data[8:data_start], max_bytes=MAX_HEADER)
    if not isinstance(header, dict):
        message = "not a .safetensors file: the header is not an object"
        raise ValueError(message)  # noqa: TRY004 - the file is wrong, not an argument's type
    # 2. Its entries; offsets count from the end of the header.
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        match entry:
            case {"dtype": str(dtype), "data_offsets": [int(begin), int(end)]} if (
                0 <= begin <= end <= len(data) - data_start
            ):
                yield _Tensor(dtype, data_start + begin, data_start + end)
            case _:
                message = (
                    f"not a .safetensors file: tensor {name!r} has no dtype and data_offsets"
                    " within the file"
                )
                raise ValueError(message)


#### floats


def _make_gaussians(raw: bytes, dtype: str, block: Sequence[float], rng: random.Random) -> bytes:
    """Return gaussian noise with mean and standard deviation of `raw`; never `raw` itself.

    `block` holds standardised gaussians; `raw` is a little-endian tensor of the type `dtype`.
    """
    values = _decode(raw, dtype)
    if not values:
        return raw
    # 1. Mean and spread of the noise, from at most some 100,000 of the values.
    step = len(values) // BLOCK or 1
    mean, std = _moments(values[::step])
    spread = std
    if std <= 1e-12 * abs(mean):  # a constant tensor: its mean can be off by one rounding
        spread = abs(mean) / 10 or 1.0
    # A single number moves by -spread: towards zero, and so away from the dtype's limit.
    if mean > 0:
        spread = -spread
    limit = _FLOAT_LIMITS[dtype]

    def encode_scaled(tile: Sequence[float]) -> bytes:
        return _encode([max(-limit, min(limit, mean + spread * z)) for z in tile], dtype)

    # 2. Draw until something changed. Two numbers can only change places, and a small spread can be
    # lost in the dtype's rounding, so each trial changes the sign or the size of the spread.
    for trial in itertools.count():
        noise = _repeat_block(len(values), block, encode_scaled, rng)
        if noise != raw:
            break
        spread = -spread
        if trial % 2 == 1:
            spread *= 10
    return noise


def _repeat_block(
    count: int,
    block: Sequence[float],
    encode_scaled: Callable[[Sequence[float]], bytes],
    rng: random.Random,
) -> bytes:
    """Return `count` encoded numbers: whole tiles, each rotated at random, and a rest.

    The rest is a piece of the block, standardised again.
    """
    whole, rest = divmod(count, BLOCK)
    pieces = []
    if whole:
        tile = encode_scaled(block)
        width = len(tile) // BLOCK  # bytes per number
        for _ in range(whole):
            offset = rng.randrange(BLOCK) * width
            pieces.append(tile[offset:] + tile[:offset])
    if rest:
        begin = rng.randrange(len(block) - rest + 1)
        pieces.append(encode_scaled(_standardise(block[begin : begin + rest])))
    return b"".join(pieces)


def _standardise(numbers: Sequence[float]) -> list[float]:
    """Shift and scale to mean 0 and standard deviation 1; a single number becomes 1."""
    if not numbers:
        return []
    mean, std = _moments(numbers)
    if not std:
        return [1.0] * len(numbers)
    return [(x - mean) / std for x in numbers]


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation (ddof 0) of the finite values.

    They are 0 and 1 if they cannot be computed.
    """
    try:
        mean = math.fsum(values) / len(values)
        if not math.isfinite(mean):
            values = [x for x in values if math.isfinite(x)] or [0.0]
            mean = math.fsum(values) / len(values)
        std = math.sqrt(math.fsum((x - mean) * (x - mean) for x in values) / len(values))
    except (OverflowError, ValueError):  # sums beyond 1e308; infinities of both signs
        return 0.0, 1.0
    if not math.isfinite(std):
        return 0.0, 1.0
    return mean, std


def _decode(raw: bytes, dtype: str) -> Sequence[float]:
    """Return the numbers of a float tensor."""
    if dtype == "F64":
        return array.array("d", raw)
    if dtype == "F16":
        return struct.unpack(f"<{len(raw) // 2}e", raw)
    if dtype == "BF16":  # the upper half of a 32-bit float
        wide = bytearray(2 * len(raw))
        wide[2::4], wide[3::4] = raw[0::2], raw[1::2]
        return array.array("f", bytes(wide))
    return array.array("f", raw)


def _encode(values: Sequence[float], dtype: str) -> bytes:
    """Return the bytes of a float tensor; the inverse of `_decode`."""
    if dtype == "F64":
        return array.array("d", values).tobytes()
    if dtype == "F16":
        return struct.pack(f"<{len(values)}e", *values)
    if dtype == "BF16":
        # To cut the lower half rounds towards zero, by half a step on average; the factor puts that
        # half step back.
        wide = array.array("f", [x * (1 + 2.0**-9) for x in values]).tobytes()
        narrow = bytearray(len(wide) // 2)
        narrow[0::2], narrow[1::2] = wide[2::4], wide[3::4]
        return bytes(narrow)
    return array.array("f", values).tobytes()


#### integers, booleans, everything else


def _shuffle(raw: bytes, dtype: str, rng: random.Random) -> bytes:
    """Return the tensor's own values in random order; they change by one if all are equal."""
    numbers = array.array(_INTEGER_CODES.get(dtype, "B"), raw)
    if not numbers:
        return raw
    # 1. Shuffle the blocks, and inside each block its numbers. All whole blocks share one order,
    # which is quick; the last, shorter one has its own.
    reorder: Any = list
    if len(numbers) >= BLOCK:
        reorder = operator.itemgetter(*rng.sample(range(BLOCK), BLOCK))
    starts = list(range(0, len(numbers), BLOCK))
    rng.shuffle(starts)
    shuffled = array.array(numbers.typecode)
    for start in starts:
        block = numbers[start : start + BLOCK].tolist()
        if len(block) < BLOCK:
            rng.shuffle(block)
        else:
            block = list(reorder(block))
        shuffled.fromlist(block)
    # 2. If that is the same order, rotate by one; if even that is the same, all numbers are equal.
    if shuffled == numbers:
        shuffled = numbers[1:] + numbers[:1]
    if shuffled == numbers:
        shuffled = _shift_by_one(numbers, dtype)
    return shuffled.tobytes()


def _shift_by_one(numbers: array.array[int], dtype: str) -> array.array[int]:
    """Move every second number of a constant tensor, the first included, by one.

    It moves up, or down at the end of the dtype's range.
    """
    largest = 1
    if dtype != "BOOL":
        is_signed = numbers.typecode.islower()
        largest = (1 << (8 * numbers.itemsize - is_signed)) - 1
    step = -1 if numbers[0] >= largest else 1  # a BOOL may hold other bytes than 0 and 1
    shifted = array.array(numbers.typecode, numbers)
    for index in range(0, len(shifted), 2):
        shifted[index] += step
    return shifted
