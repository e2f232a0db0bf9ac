"""Reading images' metadata with the standard library: which data was this picture drawn from?"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

SIGNATURE = b"\x89PNG\r\n\x1a\n"
IDENTIFIER = re.compile(r"<dc:identifier>sha256:([0-9a-f]{64})</dc:identifier>")


def stated_digest(path: Path) -> str:
    """Give the sha256 (hex) of the data file that an image names.

    AssertionError if it names none or is damaged.
    """
    if path.suffix == ".svg":
        found = IDENTIFIER.search(path.read_text("utf-8"))
        assert found, f"{path.name} names no data file (dc:identifier)"
        return found[1]
    # list: every chunk is checked, also those behind the text
    for kind, data in list(chunks(path.read_bytes())):
        key, _, text = data.partition(b"\0")
        if kind == b"tEXt" and key == b"Data-SHA256":
            return text.decode("latin-1")
    msg = f"{path.name} names no data file (text chunk Data-SHA256)"
    raise AssertionError(msg)


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Give (type, data) of each chunk (ISO/IEC 15948, 5.3).

    AssertionError where a length or a CRC does not hold.
    """
    assert png.startswith(SIGNATURE), "not a PNG file"
    place = len(SIGNATURE)
    while place < len(png):
        assert place + 12 <= len(png), "the PNG file ends inside a chunk"
        (length,) = struct.unpack(">I", png[place : place + 4])
        kind, data = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        crc = png[place + 8 + length : place + 12 + length]
        assert crc == struct.pack(">I", zlib.crc32(kind + data)), (
            f"the PNG chunk {kind!r} is damaged (CRC)"
        )
        yield kind, data
        place += 12 + length
