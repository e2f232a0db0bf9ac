"""The mutated bytes of one output file: damaged or altered by its kind.

`damage_file` makes the mutant that tries whether anybody notices. `alter_file` makes the one that
tries whether anybody reads: all numbers change, and the file stays as readable as it was.
`copies.py` writes mutants to the disk.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import random
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from functools import partial
from typing import Any

from phases.base import durable, strict_json
from phases.judge.measurements import Change, alter_value
from phases.judge.noise import mutate_arrays

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PIXEL_BYTES = 1 << 28
MAX_ALTERED = 1 << 20  # bytes of a file in which numbers are changed
_NUMBER = re.compile(rb"([0-9]+)((?:\.[0-9]+)?)")
_WORD = re.compile(rb"\S+\s*|\s+")
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
    FileKind.JSON: "every value changed",
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
    damaged = _mutate_by_kind(path, data, random.Random(f"{path}:{durable.sha256(data)}"))
    if damaged is None and kind_of(path) == FileKind.OTHER:
        return data[: len(data) // 2] or _change_byte(data)
    if damaged is None:
        return mutate_text(data)
    return damaged


def alter_file(path: str, data: bytes, rng: random.Random) -> bytes:
    """Return the altered bytes of a file: never its own, and as readable as before.

    Every number changes. So a check that counts lines or columns, or that parses numbers and does
    not judge them, does not notice; and it does not depend on luck which numbers are judged.
    """
    altered = data
    if path.endswith(".json"):
        altered = _alter_json(data)
    elif path.endswith(".jsonl"):
        altered = b"".join(map(_alter_json, data.splitlines(keepends=True)))
    elif kind_of(path) in (FileKind.ARRAYS, FileKind.IMAGE):
        altered = _mutate_by_kind(path, data, rng) or data
    if altered == data and b"\0" not in data:
        altered = alter_numbers(data[:MAX_ALTERED]) + data[MAX_ALTERED:]
    if altered == data:
        altered = _alter_byte(data, rng)
    return altered


def _mutate_by_kind(path: str, data: bytes, rng: random.Random) -> bytes | None:
    """Return other bytes of a file that is what its name says, and has something to change."""
    mutators: dict[FileKind, Callable[[bytes, random.Random], bytes]] = {
        FileKind.JSON: mutate_json,
        FileKind.ARRAYS: mutate_arrays,
        FileKind.IMAGE: mutate_png,
    }
    kind = kind_of(path)
    if kind in mutators:
        with contextlib.suppress(ValueError, struct.error):
            mutated = mutators[kind](data, rng)
            return mutated if mutated != data else None
    return None


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
    for pieces in (partial(io.BytesIO, data), partial(_words, data)):
        pieces_with_words = (piece for piece in pieces() if piece.strip())
        if len(list(itertools.islice(pieces_with_words, 2))) == 2:
            return _drop_every_second(pieces())
    word = data.strip()
    if len(word) > 1:
        return data.replace(word, word[::2])
    return _change_byte(data)


def _words(data: bytes) -> Iterator[bytes]:
    """Yield the words of a text, each with the blanks behind it."""
    for match in _WORD.finditer(data):
        yield match[0]


def _drop_every_second(pieces: Iterable[bytes]) -> bytes:
    """Drop every second piece that is not blank; with thousands of them, no list is made."""
    kept = io.BytesIO()
    is_dropped = True
    for piece in pieces:
        if piece.strip():
            is_dropped = not is_dropped
        if not (piece.strip() and is_dropped):
            kept.write(piece)
    return kept.getvalue()


def alter_numbers(text: bytes) -> bytes:
    """Return a text with other numbers: 14 becomes 141, 2.5 becomes 21.5, 0.99 becomes 1.99."""

    def alter(match: re.Match[bytes]) -> bytes:
        whole = match[1]
        return (b"1" if whole == b"0" else whole + b"1") + match[2]

    return _NUMBER.sub(alter, text)


def _alter_byte(data: bytes, rng: random.Random) -> bytes:
    """Change one letter of a text, or one byte of anything else."""
    if not data.strip():
        return data + b"?"
    start = rng.randrange(len(data))
    found = None
    if b"\0" not in data:
        found = _LETTER.search(data, start) or _LETTER.search(data)
    if found:
        other = rng.choice(b"abcdefgh".replace(found[0].lower(), b""))
        return data[: found.start()] + bytes([other]) + data[found.end() :]
    return data[:start] + bytes([data[start] ^ 0xFF]) + data[start + 1 :]


#### JSON


def mutate_json(data: bytes, _rng: random.Random) -> bytes:
    """Alter every leaf by a large change; a document without leaves gets one.

    Raises:
        ValueError: not strict JSON.
    """
    document = strict_json.loads(data, max_bytes=len(data))
    return _encode_json(alter_value(document, Change.LARGE))


def _alter_json(data: bytes) -> bytes:
    """Alter every number of a document; the same bytes, if there is none or it is no strict JSON.

    What follows it, such as the end of its line, stays.
    """
    with contextlib.suppress(ValueError):
        document = strict_json.loads(data, max_bytes=len(data))
        altered = alter_leaves(document, alter_number)
        if altered != document:
            indent = 2 if b"\n" in data.strip() else None
            return _encode_json(altered, indent) + data[len(data.rstrip()) :]
    return data


def alter_leaves(value: Any, alter: Callable[[Any], Any]) -> Any:
    """Return a JSON value with each leaf altered."""
    if isinstance(value, dict):
        return {key: alter_leaves(item, alter) for key, item in value.items()}
    if isinstance(value, list):
        return [alter_leaves(item, alter) for item in value]
    return alter(value)


def alter_number(value: Any) -> Any:
    """Return another number for a number, and everything else as it is."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return alter_value(value, Change.LARGE)
    return value


def _encode_json(document: Any, indent: int | None = 2) -> bytes:
    return json.dumps(document, indent=indent, ensure_ascii=False).encode()


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
