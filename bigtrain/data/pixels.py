"""Pixels on their way into a shard: opened, brought to channels and size, and encoded, by Pillow.

Axes: H height, W width, C channels.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from bigtrain.data.header import BYTE_BITS, PNG_SIGNATURE, read_header

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]
"""Height and width in pixels."""
Format = Literal["jpg", "png", "webp"]

FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX, "bicubic": Image.Resampling.BICUBIC}
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
FORMAT_PIXELS = {"jpg": 65_500, "webp": 16_383}  # a side at most: libjpeg's JPEG_MAX_DIMENSION, and 14 bits (RFC 9649)
FORMAT_CHANNELS: dict[str, tuple[int, ...]] = {"jpg": (1, 3), "png": (1, 3, 4), "webp": (3, 4)}
SOURCE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # Pillow's others include EPS, which runs Ghostscript
DEFAULT_QUALITY = 95

# jpg: no chroma subsampling, since a generator learns what the file shows; webp: method 4 is Pillow's default
_SAVE: dict[str, dict[str, Any]] = {
    "jpg": {"format": "JPEG", "subsampling": 0},
    "png": {"format": "PNG", "compress_level": 6},
    "webp": {"format": "WEBP", "method": 4},
}


def encode(pixels: Pixels | Image.Image, image_format: str, quality: int = DEFAULT_QUALITY) -> bytes:
    """Encode an image; equal pixels give equal bytes under one version of Pillow.

    Args:
        pixels: uint8, [H, W] or [H, W, C], or a Pillow image.
        image_format: "jpg", "png" (lossless) or "webp".
        quality: 1..100, of jpg and webp.
    """
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    options = _SAVE[image_format] if image_format == "png" else {**_SAVE[image_format], "quality": quality}
    stream = io.BytesIO()
    image.save(stream, **options)
    return stream.getvalue()


def open_image(path: Path, channels: int, max_pixels: int) -> Image.Image:
    """Read an image file as `read_image` does."""
    return read_image(path.read_bytes(), channels, max_pixels)


def read_image(data: bytes | Image.Image, channels: int, max_pixels: int) -> Image.Image:
    """Read an image as it is meant to be seen: turned as its EXIF says, transparency over white unless alpha is kept.

    Args:
        data: a JPEG, PNG, WebP, BMP, TIFF or GIF file, or pixels.
        channels: 1 gray, 3 RGB, 4 RGB and alpha.
        max_pixels: images that claim more are refused before anything is decompressed.

    Raises:
        ValueError: says why the image is refused (a phrase that continues "the image ...").
    """
    if isinstance(data, Image.Image):
        return _to_channels(data, channels)
    if data.startswith(PNG_SIGNATURE) and read_header(data).bits > BYTE_BITS:
        raise ValueError(f"has more than {BYTE_BITS} bits a channel")
    try:
        with Image.open(io.BytesIO(data), formats=SOURCE_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ValueError(f"claims {image.width}x{image.height} pixels, over the limit of {max_pixels}")
            if getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: a photograph with a preview
                raise ValueError("is an animation")
            return _to_channels(ImageOps.exif_transpose(image), channels)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot be decoded: {error}") from error


def _to_channels(image: Image.Image, channels: int) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise ValueError(f"has more than {BYTE_BITS} bits a channel (mode {image.mode})")
    if image.has_transparency_data and channels != 4:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return image.convert(MODES[channels])


def halves(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Cut an image in the middle; return its left and right half.

    Raises:
        ValueError: its width is odd.
    """
    if image.width % 2:
        raise ValueError(f"is {image.width} pixels wide, an odd number, so it has no halves")
    middle = image.width // 2
    return image.crop((0, 0, middle, image.height)), image.crop((middle, 0, image.width, image.height))


def refuse_proportions(first: Size, second: Size, how: str) -> None:
    """Check that `fit` takes the same part of both images of a pair; both sizes are height and width.

    One may be larger, as for super-resolution: what is lost in rounding to whole pixels is allowed.

    Raises:
        ValueError: their proportions differ, so that they would be cut or framed in different places.
    """
    difference = abs(first[0] * second[1] - first[1] * second[0])
    if how != "squash" and difference > max(*first, *second):
        ours, theirs = (f"{width}x{height}" for height, width in (second, first))
        raise ValueError(
            f"is {ours} and the other one of its pair {theirs}, so that --fit {how} would not take the same part of "
            "both (--fit squash would)"
        )


def fit(image: Image.Image, size: Size, how: str, resize_filter: str) -> Image.Image:
    """Bring an image to a size.

    Args:
        image: any size.
        size: height and width in pixels.
        how: "crop" keeps the largest centred box of the proportions of `size`, to the nearest pixel; "pad" keeps all
            and adds black; "squash" ignores proportions.
        resize_filter: "lanczos", "box" or "bicubic".
    """
    return FITS[how](image, size, FILTERS[resize_filter])


def is_enlarged(source: Size, size: Size, how: str) -> bool:
    """Tell whether `fit` makes pixels that the source has not; both sizes are height and width."""
    less = [have < wanted for have, wanted in zip(source, size, strict=True)]
    return all(less) if how == "pad" else any(less)


def _crop(image: Image.Image, size: Size, resample: Image.Resampling) -> Image.Image:
    height, width = size
    box_height = min(image.height, max(1, round(image.width * height / width)))
    box_width = min(image.width, max(1, round(image.height * width / height)))
    left, top = (image.width - box_width) // 2, (image.height - box_height) // 2
    return image.resize((width, height), resample, box=(left, top, left + box_width, top + box_height))


def _pad(image: Image.Image, size: Size, resample: Image.Resampling) -> Image.Image:
    height, width = size
    scale = min(width / image.width, height / image.height)
    inner_width, inner_height = (max(1, round(length * scale)) for length in image.size)
    framed = Image.new(image.mode, (width, height))
    inner = image.resize((inner_width, inner_height), resample)
    framed.paste(inner, ((width - inner_width) // 2, (height - inner_height) // 2))
    return framed


def _squash(image: Image.Image, size: Size, resample: Image.Resampling) -> Image.Image:
    height, width = size
    return image.resize((width, height), resample)


FITS: dict[str, Callable[[Image.Image, Size, Image.Resampling], Image.Image]] = {
    "crop": _crop,
    "pad": _pad,
    "squash": _squash,
}
