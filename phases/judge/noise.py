"""Noise in place of arrays: a .safetensors file with the same header and other numbers.

Format: 8 bytes length of the header (little-endian), the header as JSON
({name: {"dtype", "shape", "data_offsets": [begin, end]}}), then the raw little-endian data
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phases.base import strict_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_HEADER = 100_000_000  # bytes; the format's own limit

_FLOAT_LIMITS = {"F64": 1.7e308, "F32": 3.4e38, "BF16": 3.38e38, "F16": 65504.0}
_INTEGER_TYPES = {
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
}
"""dtype -> numpy's name of it."""


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
    import numpy as np

    generator = np.random.default_rng(rng.getrandbits(128))
    mutated = bytearray(data)
    for tensor in _read_tensors(data):
        raw = data[tensor.start : tensor.stop]
        if not raw:
            continue
        if tensor.dtype in _FLOAT_LIMITS:
            noise = _make_gaussians(raw, tensor.dtype, generator)
        else:
            noise = _shuffle(raw, tensor.dtype, generator)
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


def _make_gaussians(raw: bytes, dtype: str, generator: np.random.Generator) -> bytes:
    """Return gaussian noise with mean and standard deviation of `raw`; never `raw` itself."""
    import numpy as np

    # 1. Mean and spread of the noise.
    values = _decode(raw, dtype)
    mean, std = _moments(values)
    spread = std
    if std <= 1e-12 * abs(mean):  # a constant tensor: its mean can be off by one rounding
        spread = abs(mean) / 10 or 1.0
    # A single number moves by -spread: towards zero, and so away from the dtype's limit.
    if mean > 0:
        spread = -spread

    # 2. Draw until something changed. Two numbers can only change places, and a small spread can be
    # lost in the dtype's rounding, so each trial changes the sign or the size of the spread.
    limit = _FLOAT_LIMITS[dtype]
    for trial in itertools.count():
        gaussians = _standardise(generator.standard_normal(len(values)))
        with np.errstate(over="ignore"):  # what is too large is cut to the dtype's limit
            scaled = mean + spread * gaussians
        noise = _encode(np.clip(scaled, -limit, limit), dtype)
        if noise != raw:
            break
        spread = -spread
        if trial % 2 == 1:
            spread *= 10
    return noise


def _standardise(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Shift and scale to mean 0 and standard deviation 1; a single number becomes 1."""
    import numpy as np

    std = numbers.std()
    if not std:
        return np.ones_like(numbers)
    standardised: npt.NDArray[np.float64] = (numbers - numbers.mean()) / std
    return standardised


def _moments(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return mean and standard deviation (ddof 0) of the finite values.

    They are 0 and 1 if there are none, or if their sums are beyond 1e308.
    """
    import numpy as np

    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(finite.mean()), float(finite.std())
    if not (np.isfinite(mean) and np.isfinite(std)):
        return 0.0, 1.0
    return mean, std


def _decode(raw: bytes, dtype: str) -> npt.NDArray[np.float64]:
    """Return the numbers of a float tensor as float64."""
    import numpy as np

    if dtype == "BF16":  # the upper half of a 32-bit float
        bits = np.frombuffer(raw, "<u2").astype("<u4") << 16
        floats = bits.view("<f4")
    else:
        names = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
        floats = np.frombuffer(raw, names[dtype])
    with np.errstate(invalid="ignore"):  # numpy warns of a signalling NaN
        return floats.astype(np.float64)


def _encode(values: npt.NDArray[np.float64], dtype: str) -> bytes:
    """Return the bytes of a float tensor; the inverse of `_decode`."""
    if dtype == "BF16":
        # Half a step is added before the lower half is cut off: the result is rounded, not cut.
        bits = values.astype("<f4").view("<u4") + 0x8000
        return (bits >> 16).astype("<u2").tobytes()
    names = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
    return values.astype(names[dtype]).tobytes()


#### integers, booleans, everything else


def _shuffle(raw: bytes, dtype: str, generator: np.random.Generator) -> bytes:
    """Return the tensor's own values in random order; they change by one if all are equal."""
    import numpy as np

    numbers = np.frombuffer(raw, _INTEGER_TYPES.get(dtype, "u1"))
    shuffled: npt.NDArray[Any] = generator.permutation(numbers)
    # If that is the same order, rotate by one; if even that is the same, all numbers are equal.
    if np.array_equal(shuffled, numbers):
        shuffled = np.roll(numbers, -1)
    if np.array_equal(shuffled, numbers):
        shuffled = _shift_by_one(numbers, dtype)
    return shuffled.tobytes()


def _shift_by_one(numbers: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """Move every second number of a constant tensor, the first included, by one.

    It moves up, or down at the end of the dtype's range.
    """
    import numpy as np

    largest = 1  # a BOOL may hold other bytes than 0 and 1
    if dtype != "BOOL":
        largest = int(np.iinfo(numbers.dtype).max)
    shifted = numbers.copy()
    if int(numbers[0]) >= largest:
        shifted[::2] -= 1
    else:
        shifted[::2] += 1
    return shifted
