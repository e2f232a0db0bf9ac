"""The mutated bytes of one output file: damaged or altered by its kind.

`damage_file` makes the mutant that tries whether anybody notices: the same damage for the same
bytes. `alter_file` makes the one that tries whether anybody reads: drawn from a seed, and of a file
of no known kind one character only. `copies.py` writes mutants to the disk.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from typing import Any

from phases.base import durable, strict_json
from phases.judge.measurements import Change, alter_value
from phases.judge.noise import mutate_arrays

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PIXEL_BYTES = 1 << 28
_WORD = re.compile(rb"\S+\s*")
_DIGIT = re.compile(rb"[0-9]")
_LETTER = re.compile(rb"[A-Za-z]")
_SAMPLES_PER_PIXEL = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG colour type


class FileKind(StrEnum):
    """A kind of file, by which its mutants are made."""

    JSON = "json"
    ARRAYS = "arrays"
    IMAGE = "image"
    TEXT = "text"
    OTHER = "other"


KINDS = {
    ".json": FileKind.JSON,
    ".safetensors": FileKind.ARRAYS,
    ".png": FileKind.IMAGE,
    ".md": FileKind.TEXT,
    ".txt": FileKind.TEXT,
    ".svg": FileKind.TEXT,
    ".jsonl": FileKind.TEXT,
}
"""How a file's name ends -> its kind."""

DAMAGES = {
    FileKind.JSON: "one value changed",
    FileKind.ARRAYS: "noise in the place of its arrays",
    FileKind.IMAGE: "one byte of pixel data changed",
    FileKind.TEXT: "every second line or word dropped",
    FileKind.OTHER: "cut in half",
}
"""What a mutant's file suffered, in words."""


def kind_of(path: str) -> FileKind:
    """Return the kind of a file by its name."""
    for ending, kind in KINDS.items():
        if path.endswith(ending):
            return kind
    return FileKind.OTHER


def damage_file(path: str, data: bytes) -> bytes:
    """Return the damaged bytes of a file: never its own, and the same ones every time."""
    kind = kind_of(path)
    if kind == FileKind.OTHER:
        return data[: len(data) // 2] or _change_byte(data)
    return _mutate(kind, data, random.Random(f"{path}:{durable.sha256(data)}"))


def alter_file(path: str, data: bytes, rng: random.Random) -> bytes:
    """Return the altered bytes of a file: never its own."""
    kind = kind_of(path)
    if kind == FileKind.OTHER:
        return alter_character(data, rng)
    return _mutate(kind, data, rng, numbers_first=True)


def _mutate(
    kind: FileKind, data: bytes, rng: random.Random, *, numbers_first: bool = False
) -> bytes:
    """Mutate a file of a known kind.

    A file that is not what its name says (JSON, .safetensors, PNG) is mutated like text, and so is
    one that has nothing to change: it is an output all the same, so the gate has to notice.
    """
    mutators: dict[FileKind, Callable[[bytes, random.Random], bytes]] = {
        FileKind.JSON: partial(mutate_json, numbers_first=numbers_first),
        FileKind.ARRAYS: mutate_arrays,
        FileKind.IMAGE: mutate_png,
    }
    mutated = data
    if kind in mutators:
        with contextlib.suppress(ValueError, struct.error):
            mutated = mutators[kind](data, rng)
    if mutated == data:
        mutated = mutate_text(data)
    return mutated


def _change_byte(data: bytes) -> bytes:
    """Return other bytes for a file that is too short to take anything away."""
    if not data.strip():
        return data + b"?"
    return bytes([data[0] ^ 1]) + data[1:]


#### text and files of no known kind


def mutate_text(data: bytes) -> bytes:
    """Drop every second line; of a single line every second word, of a single word every second
    byte. A single byte changes. Nothing becomes empty.

    Blank lines are neither counted nor dropped: if they counted, a text with a blank line after
    every line would lose no word.
    """
    lines = []
    position = 0
    for line in data.splitlines(keepends=True):
        if line.strip():
            lines.append((position, position + len(line)))
        position += len(line)
    words = [match.span() for match in _WORD.finditer(data)] if len(lines) == 1 else []
    single_bytes = [(start, start + 1) for start in range(len(data)) if len(words) == 1]
    for pieces in (lines, words, single_bytes):
        if len(pieces) > 1:
            return _drop_every_second(data, pieces)
    return _change_byte(data)


def _drop_every_second(data: bytes, pieces: list[tuple[int, int]]) -> bytes:
    """Drop every second piece, each from a start to an end."""
    kept = bytearray()
    position = 0
    for start, end in pieces[1::2]:
        kept += data[position:start]
        position = end
    return bytes(kept + data[position:])


def alter_character(data: bytes, rng: random.Random) -> bytes:
    """Change one digit of a text to another digit, or one letter if it has no digit; else one byte.

    A text stays a text of as many lines and columns, so that only a reader of its numbers notices.
    """
    if not data.strip():
        return data + b"?"
    start = rng.randrange(len(data))
    if _is_text(data):
        for characters, choice in ((_DIGIT, b"0123456789"), (_LETTER, b"abcdefgh")):
            found = characters.search(data, start) or characters.search(data)
            if found:
                other = rng.choice(choice.replace(found[0].lower(), b""))
                return data[: found.start()] + bytes([other]) + data[found.end() :]
    return data[:start] + bytes([data[start] ^ 0xFF]) + data[start + 1 :]


def _is_text(data: bytes) -> bool:
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


#### JSON


def mutate_json(data: bytes, rng: random.Random, *, numbers_first: bool = False) -> bytes:
    """Alter one leaf, drawn at random, by a large change; a document without leaves gets one.

    Args:
        data: the document.
        rng: what draws the leaf.
        numbers_first: whether a leaf that is no number is drawn only where there are no numbers.

    Raises:
        ValueError: not strict JSON.
    """
    # The document is put into a list, so that a document that is a leaf has a container too.
    root = [strict_json.loads(data, max_bytes=len(data))]
    leaves = list(_leaves(root)) or [(root, 0)]
    if numbers_first:
        leaves = [leaf for leaf in leaves if _is_number(leaf)] or leaves
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


def _is_number(leaf: tuple[Any, Any]) -> bool:
    container, key = leaf
    return isinstance(container[key], int | float) and not isinstance(container[key], bool)


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
