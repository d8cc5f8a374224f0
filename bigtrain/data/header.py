"""What an encoded image claims to be, read from its first bytes: nothing is decompressed before its size is known.

Only JPEG, PNG and WebP are known, 8 bits a channel (PNG specification 11.2.2; WebP container specification, RFC 9649).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import simplejpeg

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # colour type -> channels; 3 is a palette of RGB
JPEG_CHANNELS = {"Gray": 1, "YCbCr": 3, "RGB": 3, "CMYK": 4, "YCCK": 4}
BYTE_BITS = 8


@dataclass(frozen=True)
class Header:
    """Format ("jpg", "png", "webp"), size in pixels, channels and bits a channel that an image claims."""

    kind: str
    width: int
    height: int
    channels: int
    bits: int = BYTE_BITS
    colours: str = ""

    @property
    def pixels(self) -> int:
        """Pixels that decoding would produce."""
        return self.width * self.height


def read_header(data: bytes) -> Header:
    """Read what an image claims to be.

    Raises:
        ValueError: not a JPEG, PNG or WebP, or the header is broken.
    """
    for magic, parse in _PARSERS.items():
        if data.startswith(magic):
            return parse(data)
    raise ValueError(f"is no JPEG, PNG or WebP (starts with {data[:8]!r})")


def _jpeg(data: bytes) -> Header:
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    return Header("jpg", width, height, JPEG_CHANNELS.get(colours, 0), colours=colours)


def _png(data: bytes) -> Header:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise ValueError("is a PNG without a header chunk")
    width, height, bits, colour_type = struct.unpack(">IIBB", data[16:26])
    return Header("png", width, height, PNG_CHANNELS.get(colour_type, 0), bits, colours=f"colour type {colour_type}")


def _webp(data: bytes) -> Header:
    kind = data[12:16]
    if len(data) < 30 or data[8:12] != b"WEBP" or kind not in (b"VP8 ", b"VP8L", b"VP8X"):
        raise ValueError("is a RIFF file but no WebP image")
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return Header("webp", width & 0x3FFF, height & 0x3FFF, 3)
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", data[21:25])
        return Header("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 4 if bits >> 28 & 1 else 3)
    width = int.from_bytes(data[24:27], "little") + 1
    height = int.from_bytes(data[27:30], "little") + 1
    return Header("webp", width, height, 4 if data[20] & 0x10 else 3)


_PARSERS: dict[bytes, Callable[[bytes], Header]] = {b"\xff\xd8\xff": _jpeg, PNG_SIGNATURE: _png, b"RIFF": _webp}
