"""Damaged copies of outputs: what a gate must refuse before anybody believes that it can.

One kind of damage per kind of output, all seeded. A kind counts as present where its damage changes bytes. Every
function here takes bytes and gives bytes; the copies on disk are made in `copies.py`.
"""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from phases.base import strict_json
from phases.judge.measurements import RESULT, alter, altered
from phases.judge.measurements import read as read_measurements
from phases.judge.noise import noise_copy

KINDS = ("measurements", "json", "arrays", "images", "text")
TEXT_SUFFIXES = (".md", ".txt", ".svg", ".jsonl")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PIXEL_BYTES = 1 << 28
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # PNG colour type -> samples per pixel


def kind_of(path: str) -> str | None:
    """The kind of damage that a file of this name can take; None if there is none."""
    if path == RESULT:
        return "measurements"
    if path.endswith(".json"):
        return "json"
    if path.endswith(".safetensors"):
        return "arrays"
    if path.endswith(".png"):
        return "images"
    return "text" if path.endswith(TEXT_SUFFIXES) else None


def damaged(
    kind: str, paths: Iterable[str], read: Callable[[str], bytes], seed: str
) -> dict[str, bytes]:
    """The files of one kind with their damaged bytes; only those whose bytes changed.

    Raises:
        strict_json.StrictJsonError: result.json cannot be read, so its measurements cannot be changed.
    """
    changed = {}
    for path in sorted(paths):
        if kind_of(path) == kind:
            data = read(path)
            new = damage(kind, data, random.Random(f"{seed}:{kind}:{path}"))
            if new != data:
                changed[path] = new
    return changed


def damage(kind: str, data: bytes, rng: random.Random) -> bytes:
    """The bytes of one file, damaged; equal bytes mean that there is nothing of this kind to damage.

    A file that is not what its name says (JSON, .safetensors, PNG) is cut like text: it lies there and is output, so
    the gate still has to notice.
    """
    if kind == "measurements":
        return altered(data, "large") if read_measurements(data) else data
    makers: Mapping[str, Callable[[bytes, random.Random], bytes]] = {
        "json": damage_json,
        "arrays": noise_copy,
        "images": damage_png,
        "text": damage_text,
    }
    try:
        return makers[kind](data, rng)
    except (ValueError, struct.error):
        return damage_text(data, rng)


def damage_text(data: bytes, _rng: random.Random) -> bytes:
    """Every second line dropped, blank ones neither counted nor dropped; a file of one line is emptied."""
    lines = data.splitlines(keepends=True)
    written = [number for number, line in enumerate(lines) if line.strip()]
    if len(written) < 2:
        return b""
    dropped = set(
        written[1::2]
    )  # counted with blank lines, a text with one between its lines would lose no word
    return b"".join(line for number, line in enumerate(lines) if number not in dropped)


def damage_json(data: bytes, rng: random.Random) -> bytes:
    """One leaf, drawn at random, changed largely; a document without leaves stays as it is. ValueError: no JSON."""
    document = [
        strict_json.loads(data, max_bytes=len(data))
    ]  # in a list, so that a bare leaf has a container too
    leaves = list(_leaves(document))
    if not leaves:
        return data
    container, key = rng.choice(leaves)
    container[key] = alter(container[key], "large")
    return json.dumps(document[0], indent=2, ensure_ascii=False).encode()


def _leaves(container: Any) -> Iterator[tuple[Any, Any]]:
    """Every leaf as (its dict or list, its key or index)."""
    for key, value in list(
        container.items() if isinstance(container, dict) else enumerate(container)
    ):
        if isinstance(value, dict | list):
            yield from _leaves(value)
        else:
            yield container, key


def damage_png(data: bytes, rng: random.Random) -> bytes:
    """One byte of pixel data inverted, packed again with the right check sums; other chunks (text among them) stay.

    Source: PNG specification (W3C), sections 5.3 (chunks), 7.2 (scan lines begin with a filter byte).

    Raises:
        ValueError: not a PNG file with pixel data.
    """
    chunks = list(_chunks(data))
    packed = b"".join(body for name, body in chunks if name == b"IDAT")
    pixels = bytearray(_inflate(packed))
    header = dict(chunks).get(b"IHDR", b"")
    pixels[_pixel_position(header, len(pixels), rng)] ^= 0xFF
    first = next(index for index, (name, _) in enumerate(chunks) if name == b"IDAT")
    kept = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
    kept.insert(first, (b"IDAT", zlib.compress(bytes(pixels))))
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in kept
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(PNG_SIGNATURE)
    if not data.startswith(PNG_SIGNATURE):
        msg = "not a PNG file"
        raise ValueError(msg)
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        body = data[position + 8 : position + 8 + length]
        if len(body) != length:
            msg = f"PNG: chunk at byte {position} runs beyond the end"
            raise ValueError(msg)
        yield data[position + 4 : position + 8], body
        position += length + 12


def _inflate(packed: bytes) -> bytes:
    try:
        pixels = zlib.decompressobj().decompress(packed, MAX_PIXEL_BYTES)
    except zlib.error as error:
        msg = f"PNG: {error}"
        raise ValueError(msg) from None
    if not pixels:
        msg = "PNG: no pixel data"
        raise ValueError(msg)
    return pixels


def _pixel_position(header: bytes, size: int, rng: random.Random) -> int:
    """A byte that is not a scan line's filter byte; the last one where scan lines are interlaced."""
    if len(header) != 13 or header[9] not in _CHANNELS:
        msg = f"PNG: header of {len(header)} bytes"
        raise ValueError(msg)
    width, height, depth, colour = struct.unpack(">IIBB", header[:10])
    stride = 1 + (width * depth * _CHANNELS[colour] + 7) // 8
    if header[12] or size != height * stride:
        return size - 1
    return int(rng.randrange(height) * stride + rng.randrange(1, stride))
