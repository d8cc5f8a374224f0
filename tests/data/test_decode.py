"""Images are decoded as they were stored, and refused from their header when they are not what the index says."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from bigtrain.data import decode
from bigtrain.data.decode import decode_into
from bigtrain.data.header import read_header
from bigtrain.data.pixels import encode
from bigtrain.recipe.image import ImageSpec

SIDE = 24


def picture(channels, seed=0):
    """A smooth picture, which JPEG and WebP keep well."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] * (np.pi / SIDE)
    waves = [127 + 120 * np.sin(x * (1 + seed) + channel) * np.cos(y - channel) for channel in range(channels)]
    pixels = np.stack(waves, axis=-1).astype(np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def decoded(data, channels, **options):
    out_HWC = np.zeros((SIDE, SIDE, channels), dtype=np.uint8)
    decode_into(data, ImageSpec(SIDE, channels, 0), out_HWC, **options)
    return out_HWC if channels > 1 else out_HWC[..., 0]


def png_that_claims(width, height, bits=8, colour_type=2):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_is_lossless(channels):
    assert np.array_equal(decoded(encode(picture(channels), "png"), channels), picture(channels))


@pytest.mark.parametrize(("image_format", "channels"), [("jpg", 1), ("jpg", 3), ("webp", 3), ("webp", 4)])
def test_lossy_formats_come_close(image_format, channels):
    error = decoded(encode(picture(channels), image_format), channels).astype(int) - picture(channels)
    assert np.abs(error).mean() < 3


def test_webp_whose_alpha_is_opaque_gets_it_back():
    pixels = np.dstack([picture(3), np.full((SIDE, SIDE), 255, np.uint8)])
    assert read_header(encode(pixels, "webp")).channels == 3
    assert (decoded(encode(pixels, "webp"), 4)[..., 3] == 255).all()


@pytest.mark.parametrize("image_format", ["jpg", "png", "webp"])
def test_headers_tell_format_size_and_channels(image_format):
    image = Image.new("RGB", (40, 28), (10, 200, 30))
    header = read_header(encode(image, image_format))
    assert (header.kind, header.width, header.height, header.channels, header.bits) == (image_format, 40, 28, 3, 8)


def test_lossless_webp_header():
    stream = io.BytesIO()
    Image.new("RGBA", (40, 28), (1, 2, 3, 4)).save(stream, "WEBP", lossless=True)
    header = read_header(stream.getvalue())
    assert (header.width, header.height, header.channels) == (40, 28, 4)


def test_too_many_pixels_are_refused_before_anything_is_decoded(monkeypatch):
    monkeypatch.setattr(decode, "_pillow", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=r"claims 20000x20000 pixels, over data.max_pixels \(64000000\)"):
        decoded(png_that_claims(20000, 20000), 3)
    with pytest.raises(ValueError, match=r"over data.max_pixels \(100\)"):
        decoded(encode(picture(3), "png"), 3, max_pixels=100)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (encode(Image.new("RGB", (SIDE, SIDE + 1)), "png"), "is 24x25, not 24x24 as the index says"),
        (encode(picture(1), "png"), r"has 1 channels \(colour type 0\), not 3"),
        (encode(picture(4), "png"), r"has 4 channels \(colour type 6\), not 3"),
        (encode(picture(1), "jpg"), r"has 1 channels \(Gray\), not 3"),
        (encode(Image.new("CMYK", (SIDE, SIDE)), "jpg"), r"has 4 channels \(.*K\), not 3"),
        (png_that_claims(SIDE, SIDE, bits=16), "has 16 bits a channel, not 8"),
        (png_that_claims(SIDE, SIDE), "cannot be decoded"),
        (encode(picture(3), "png")[:-60], "cannot be decoded"),
        (encode(picture(3), "jpg")[:-100], "cannot be decoded"),
        (b"GIF89a" + bytes(40), "is no JPEG, PNG or WebP"),
        (b"", "is no JPEG, PNG or WebP"),
        (b"\x80\x04\x95pickle", "is no JPEG, PNG or WebP"),
        (b"\x89PNG\r\n\x1a\n", "without a header chunk"),
        (b"RIFF" + bytes(40), "no WebP image"),
    ],
)
def test_what_is_not_as_the_index_says_is_refused_with_its_reason(data, words):
    with pytest.raises(ValueError, match=words) as caught:
        decoded(data, 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("image_format", ["jpg", "png", "webp"])
def test_random_damage_is_refused_with_a_reason_or_decoded_but_never_crashes(image_format):
    rng = np.random.default_rng(0)
    whole = np.frombuffer(encode(picture(3), image_format), np.uint8)
    refused = 0
    for _ in range(400):
        data = whole.copy()
        data[rng.integers(len(data), size=3)] = rng.integers(256, size=3)
        try:
            decoded(data[: rng.integers(1, 2 * len(data))].tobytes(), 3)
        except ValueError:
            refused += 1
    assert refused > 100  # half of them are cut as well
