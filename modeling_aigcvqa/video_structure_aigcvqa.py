"""Find the damage of a video file in the structure of its container: sizes that go beyond its end, broken chains.

Decoders skip what they cannot read, and play a file on without a word when it is cut or a part of it is overwritten.
"""

import mmap
import zlib
from collections.abc import Callable
from pathlib import Path

from .frames_aigcvqa import check_time

Data = bytes | mmap.mmap

# Boxes of the top level.
MP4_BOXES = set(b"ftyp moov mdat wide styp free skip moof mfra sidx ssix emsg prft meta uuid pnot".split())
EBML_HEADER, EBML_SEGMENT, EBML_CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def structural_damage(source: bytes | Path) -> str | None:
    """What is broken in the container of a file or of its content; None if nothing is, or the format is not known.

    Known are AVI, mp4 and mov, Matroska and WebM, Ogg, FLV, ASF (WMV), MPEG transport streams and YUV4MPEG.
    """
    if isinstance(source, bytes):
        return _damage(source)
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _damage(data)


def _damage(data: Data) -> str | None:
    head = data[:4096]
    size = len(data)
    if head[:4] == b"RIFF":
        return _chain(data, _riff_chunk)
    if head[:4] == EBML_HEADER:
        return _chain(data, _ebml_element)
    if head[4:8] in MP4_BOXES:
        return _chain(data, _mp4_box)
    if head[:4] == b"OggS":
        return _ogg_damage(data)
    if head[:3] == b"FLV":
        return _chain(data, _flv_tag, start=int.from_bytes(head[5:9], "big") + 4)
    if head[:16] == ASF_HEADER and ASF_FILE_PROPERTIES in head:
        start = head.index(ASF_FILE_PROPERTIES) + 40
        return _missing(int.from_bytes(head[start : start + 8], "little") - size)
    if head[:1] + head[188:189] + head[376:377] == b"GGG":
        return _missing(-size % 188)
    if head[:10] == b"YUV4MPEG2 ":
        first = data.find(b"FRAME")
        second = data.find(b"FRAME", first + 5)
        return _missing(-(size - first) % (second - first)) if 0 < first < second else None
    return None


def _missing(count: int) -> str | None:
    return f"at least {count} bytes are missing at its end" if count > 0 else None


def _chain(data: Data, length_at: Callable[[Data, int], int | None], start: int = 0) -> str | None:
    """Follow the elements of a file, each of which gives its length, to the end of the file.

    Args:
        length_at: gives the length of the element at a position, 0 for one that extends to the end of the file, or None
            if there is no element.
    """
    position = start
    while position < len(data):
        check_time("the clip")  # a small file may have millions of elements
        length = length_at(data, position)
        if length is None:
            return f"its structure is broken at byte {position}"
        if length == 0:
            return None
        position += length
    return _missing(position - len(data))


def _riff_chunk(data: Data, position: int) -> int | None:
    """A list is followed inside: its length is that of its head."""
    name, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
    if name in (b"RIFF", b"LIST"):
        return 12
    if not name.strip(b"\0"):
        return 0
    return 8 + length + length % 2 if name.isascii() and name.decode().isprintable() else None


def _mp4_box(data: Data, position: int) -> int | None:
    length, name = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
    if name not in MP4_BOXES:
        return 0  # bytes after the last box do no harm
    if length == 1:
        length = int.from_bytes(data[position + 8 : position + 16], "big")
    # Boxes within each other are not followed, because the number of frames tells of them.
    return length if length >= 8 else 0


def _ebml_element(data: Data, position: int) -> int | None:
    """A segment and a cluster are followed inside: their length is that of their head."""
    head = data[position : position + 12]
    identifier = 9 - head[0].bit_length()
    if identifier > 4 or len(head) <= identifier:
        return None
    size_length = 9 - head[identifier].bit_length()
    if head[:identifier] in (EBML_SEGMENT, EBML_CLUSTER):
        return identifier + size_length
    if size_length > 8:
        return None
    size = int.from_bytes(head[identifier : identifier + size_length], "big") & ((1 << 7 * size_length) - 1)
    return identifier + size_length + size


def _flv_tag(data: Data, position: int) -> int | None:
    """A tag ends with its own length."""
    length = 11 + int.from_bytes(data[position + 1 : position + 4], "big")
    end = data[position + length : position + length + 4]
    return length + 4 if len(end) < 4 or int.from_bytes(end, "big") in (length, 0) else None


def _ogg_damage(data: Data) -> str | None:
    """Every page has a checksum and a number, and the last page of a stream is marked."""
    numbers: dict[bytes, int] = {}
    ended: dict[bytes, bool] = {}
    position = 0
    while position < len(data):
        check_time("the clip")
        head = data[position : position + 27]
        if len(head) < 27 or head[:4] != b"OggS":
            return f"its structure is broken at byte {position}"
        segments = data[position + 27 : position + 27 + head[26]]
        page = data[position : position + 27 + head[26] + sum(segments)]
        stream, number = head[14:18], int.from_bytes(head[18:22], "little")
        if number != numbers.get(stream, number - 1) + 1:
            return f"a part is missing before byte {position}"
        if _ogg_checksum(page[:22] + bytes(4) + page[26:]) != int.from_bytes(head[22:26], "little"):
            return f"the page at byte {position} is broken"
        numbers[stream], ended[stream] = number, bool(head[5] & 4)
        position += len(page)
    return None if all(ended.values()) else "its end is missing"


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 with the most significant bit first, made of zlib's, whose bits have the other order."""
    crc = zlib.crc32(page.translate(BITS_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)
