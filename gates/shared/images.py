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
    """Return the sha256 (hex) of the data file that an image names.

    Raises:
        AssertionError: it names none, or is no valid image.
    """
    if path.suffix == ".svg":
        identifier = IDENTIFIER.search(path.read_text("utf-8"))
        assert identifier, f"{path.name} names no data file (dc:identifier)"
        return identifier[1]
    # A list, so that the chunks behind the text are checked too.
    for kind, data in list(chunks(path.read_bytes())):
        key, _, text = data.partition(b"\0")
        if kind == b"tEXt" and key == b"Data-SHA256":
            return text.decode("latin-1")
    msg = f"{path.name} names no data file (text chunk Data-SHA256)"
    raise AssertionError(msg)


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, data) of each chunk (ISO/IEC 15948, 5.3): length, type, data, CRC.

    Raises:
        AssertionError: a length or a CRC is wrong.
    """
    assert png.startswith(SIGNATURE), "not a PNG file"
    start = len(SIGNATURE)
    while start < len(png):
        assert start + 12 <= len(png), "the PNG file ends inside a chunk"
        (length,) = struct.unpack(">I", png[start : start + 4])
        kind = png[start + 4 : start + 8]
        data = png[start + 8 : start + 8 + length]
        crc = png[start + 8 + length : start + 12 + length]
        assert crc == struct.pack(">I", zlib.crc32(kind + data)), (
            f"the PNG chunk {kind!r} has another CRC than its data"
        )
        yield kind, data
        start += 12 + length
