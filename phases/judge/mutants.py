"""The mutated files of mutants: one mutation per kind of output, each drawn from a seed.

A kind counts as present if its mutation changes bytes. Every function here takes bytes and returns
bytes; `copies.py` writes the mutants to disk.
"""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from phases.base import strict_json
from phases.judge.measurements import Change, alter_result, alter_value
from phases.judge.noise import mutate_arrays
from phases.plan.schema import MutationKind
from phases.record.result import RESULT, read_measurements

TEXT_SUFFIXES = (".md", ".txt", ".svg", ".jsonl")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PIXEL_BYTES = 1 << 28
_SAMPLES_PER_PIXEL = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG colour type


def kind_of(path: str) -> MutationKind | None:
    """Return the kind of a file by its name; None if no mutation is made of such files."""
    if path == RESULT:
        return MutationKind.MEASUREMENTS
    if path.endswith(".json"):
        return MutationKind.JSON
    if path.endswith(".safetensors"):
        return MutationKind.ARRAYS
    if path.endswith(".png"):
        return MutationKind.IMAGES
    if path.endswith(TEXT_SUFFIXES):
        return MutationKind.TEXT
    return None


def mutate_files(
    kind: MutationKind, paths: Iterable[str], read: Callable[[str], bytes], seed: str
) -> dict[str, bytes]:
    """Return the mutated bytes of all files of one kind, by path; only those that changed.

    Raises:
        strict_json.StrictJsonError: result.json cannot be read, so its measurements cannot be
            changed.
    """
    changed = {}
    for path in sorted(paths):
        if kind_of(path) == kind:
            data = read(path)
            mutated = mutate_bytes(kind, data, random.Random(f"{seed}:{kind}:{path}"))
            if mutated != data:
                changed[path] = mutated
    return changed


def mutate_bytes(kind: MutationKind, data: bytes, rng: random.Random) -> bytes:
    """Return the mutated bytes of one file; equal bytes mean that there is nothing to mutate.

    A file that is not what its name says (JSON, .safetensors, PNG) is mutated like text: it is an
    output all the same, so the gate has to notice.

    Raises:
        strict_json.StrictJsonError: `kind` is MEASUREMENTS and result.json cannot be read.
    """
    if kind == MutationKind.MEASUREMENTS:
        return alter_result(data, Change.LARGE) if read_measurements(data) else data
    mutate: Mapping[MutationKind, Callable[[bytes, random.Random], bytes]] = {
        MutationKind.JSON: mutate_json,
        MutationKind.ARRAYS: mutate_arrays,
        MutationKind.IMAGES: mutate_png,
        MutationKind.TEXT: mutate_text,
    }
    try:
        return mutate[kind](data, rng)
    except (ValueError, struct.error):
        return mutate_text(data, rng)


def mutate_text(data: bytes, _rng: random.Random) -> bytes:
    """Drop every second line; blank lines are neither counted nor dropped.

    A file of one line becomes empty.
    """
    lines = data.splitlines(keepends=True)
    # If blank lines counted, a text with a blank line after every line would lose no word.
    numbers = [number for number, line in enumerate(lines) if line.strip()]
    if len(numbers) < 2:
        return b""
    dropped = set(numbers[1::2])
    return b"".join(line for number, line in enumerate(lines) if number not in dropped)


#### JSON


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Alter one leaf, drawn at random, by a large change; a document without leaves stays.

    Raises:
        ValueError: not strict JSON.
    """
    # The document is put into a list, so that a document that is a leaf has a container too.
    root = [strict_json.loads(data, max_bytes=len(data))]
    leaves = list(_leaves(root))
    if not leaves:
        return data
    container, key = rng.choice(leaves)
    container[key] = alter_value(container[key], Change.LARGE)
    return json.dumps(root[0], indent=2, ensure_ascii=False).encode()


def _leaves(container: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every leaf as (its dict or list, its key or index)."""
    if isinstance(container, dict):
        members = list(container.items())
    else:
        members = list(enumerate(container))
    for key, value in members:
        if isinstance(value, dict | list):
            yield from _leaves(value)
        else:
            yield container, key


#### PNG


def mutate_png(data: bytes, rng: random.Random) -> bytes:
    """Invert one byte of pixel data and correct the checksums; other chunks (text too) stay.

    Source: PNG specification (W3C), sections 5.3 (chunks), 7.2 (scan lines begin with a filter
    byte).

    Raises:
        ValueError: not a PNG file with pixel data.
    """
    # 1. Unpack the pixels of all IDAT chunks and change one byte.
    chunks = list(_read_chunks(data))
    packed = b"".join(body for name, body in chunks if name == b"IDAT")
    pixels = bytearray(_inflate(packed))
    header = dict(chunks).get(b"IHDR", b"")
    pixels[_choose_pixel_byte(header, len(pixels), rng)] ^= 0xFF
    # 2. Put one IDAT chunk in the place of the first one.
    first = next(index for index, (name, _) in enumerate(chunks) if name == b"IDAT")
    new_chunks = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
    new_chunks.insert(first, (b"IDAT", zlib.compress(bytes(pixels))))
    # 3. A chunk is: length, name, body, checksum of name and body.
    mutated = bytearray(PNG_SIGNATURE)
    for name, body in new_chunks:
        mutated += struct.pack(">I", len(body)) + name + body
        mutated += struct.pack(">I", zlib.crc32(name + body))
    return bytes(mutated)


def _read_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and the body of each chunk."""
    if not data.startswith(PNG_SIGNATURE):
        message = "not a PNG file"
        raise ValueError(message)
    position = len(PNG_SIGNATURE)
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        body = data[position + 8 : position + 8 + length]
        if len(body) != length:
            message = f"PNG: the chunk at byte {position} is longer than the file"
            raise ValueError(message)
        yield data[position + 4 : position + 8], body
        position += length + 12


def _inflate(packed: bytes) -> bytes:
    """Unpack pixel data, at most MAX_PIXEL_BYTES of it."""
    try:
        pixels = zlib.decompressobj().decompress(packed, MAX_PIXEL_BYTES)
    except zlib.error as error:
        message = f"PNG: {error}"
        raise ValueError(message) from None
    if not pixels:
        message = "PNG: no pixel data"
        raise ValueError(message)
    return pixels


def _choose_pixel_byte(header: bytes, size: int, rng: random.Random) -> int:
    """Return the position of a byte that is not the filter byte of a scan line.

    It is the last byte if the scan lines are interlaced, or if `size` is not that of the header.
    """
    if len(header) != 13 or header[9] not in _SAMPLES_PER_PIXEL:
        message = f"PNG: header of {len(header)} bytes; expected 13 and a known colour type"
        raise ValueError(message)
    width, height, depth, colour_type = struct.unpack(">IIBB", header[:10])
    is_interlaced = header[12] != 0
    # A scan line: its filter byte, then the samples, padded to a whole byte.
    stride = 1 + (width * depth * _SAMPLES_PER_PIXEL[colour_type] + 7) // 8
    if is_interlaced or size != height * stride:
        return size - 1
    return int(rng.randrange(height) * stride + rng.randrange(1, stride))
