"""Plain PNG files give the pixels that Pillow's reader gives; all other files are left to it."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from bigtrain.data.header import read_header
from bigtrain.data.png import plain_pixels

HEIGHT, WIDTH = 21, 34


def noise(mode, seed=0):
    channels = len(mode)
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, channels), dtype=np.uint8)
    pixels[: HEIGHT // 2] //= 64  # long runs too
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def saved(image, **options):
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def plain(data):
    return plain_pixels(data, read_header(data))


def by_reader(data):
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_pixels_are_those_that_were_written(mode, level):
    image = noise(mode)
    found = plain(saved(image, compress_level=level))
    assert found is not None
    assert found.dtype == np.uint8
    assert found.shape == (HEIGHT, WIDTH, len(mode))
    assert np.array_equal(found.squeeze(), np.asarray(image))


def test_many_chunks_of_pixels_and_chunks_beside_them_change_nothing(monkeypatch):
    text = PngImagePlugin.PngInfo()
    text.add_text("title", "x" * 300)
    monkeypatch.setattr(PngImagePlugin.ImageFile, "MAXBLOCK", 256)
    data = saved(noise("RGB"), pnginfo=text, dpi=(300, 300))
    assert data.count(b"IDAT") > 1
    assert np.array_equal(plain(data), by_reader(data))


def test_a_colour_that_is_transparent_changes_no_other_pixel():
    data = saved(noise("L"), transparency=3)
    assert np.array_equal(plain(data), by_reader(data))


@pytest.mark.parametrize("mode", ["1", "P", "I;16"])
def test_other_kinds_are_left_to_the_reader(mode):
    image = noise("L").convert("I;16") if mode == "I;16" else noise("RGB").convert(mode)
    assert plain(saved(image)) is None


def test_interlaced_files_are_left_to_the_reader():
    data = bytearray(saved(noise("RGB")))
    data[28] = 1
    assert plain(bytes(data)) is None


def test_flipped_bits_of_pixels_are_refused_or_read_as_the_reader_reads_them():
    whole, rng, refused = saved(noise("RGB")), np.random.default_rng(1), 0
    first, last = whole.index(b"IDAT") + 4, whole.index(b"IEND") - 8
    for _ in range(300):
        data = bytearray(whole)
        data[rng.integers(first, last)] ^= 1 << int(rng.integers(8))
        found = plain(bytes(data))
        if found is None:
            refused += 1
            with pytest.raises((OSError, SyntaxError)):
                by_reader(bytes(data))
        else:
            assert np.array_equal(found, by_reader(bytes(data)))
    assert 0 < refused < 300


def test_a_file_cut_anywhere_is_left_to_the_reader():
    whole = saved(noise("RGB"))
    for length in range(33, len(whole) - 12, 7):
        assert plain(whole[:length]) is None
