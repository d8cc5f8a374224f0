"""Films as files: MP4 (H.264, what slides and browsers play), GIF, and WebP without loss; all of them loop.

Axes: C channels, H height, W width.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from bigtrain.recipe.errors import UsageError
from bigtrain.recipe.registry import Registry
from bigtrain.sampling.files import written_aside
from bigtrain.sampling.grids import WHITE

FILMS = Registry("film format")
QUALITY_CRF = "16"  # of x264: 0 is without loss, 23 its default
MILLISECONDS = 1000
Pixels = npt.NDArray[np.uint8]
Writer = Callable[[BinaryIO, Iterator[Pixels], int], None]
"""(stream, frames, uint8 [H, W] or [H, W, 3], frames a second)"""


def film_suffixes() -> tuple[str, ...]:
    """Return the suffixes of files that hold films, such as ".mp4"."""
    return tuple(f".{name}" for name in FILMS)


def check_film_format(path: Path) -> None:
    """Refuse what cannot be written here, before anything is computed.

    Raises:
        UsageError: the suffix is no film's, or PyAV is needed and missing.
    """
    if path.suffix.lower() not in film_suffixes():
        raise UsageError(f"{path}: films end in {', '.join(film_suffixes())}, pictures in .png; choose one of them")
    if path.suffix.lower() == ".mp4":
        _av(path)


def save_film(path: Path, frames: Iterable[Tensor], frames_per_s: int) -> Path:
    """Write frames as a film that loops; the suffix of the path says as what.

    Args:
        path: ends in .mp4, .gif or .webp; an existing file is replaced whole.
        frames: uint8 [C, H, W] of one shape, at least one; C is 1, 3 or 4 (transparent pixels become white). A white
            row or column is added where a side is odd, since H.264 has even sides.
        frames_per_s: from 1 on; GIF rounds the time of a frame to hundredths of a second.
    Returns:
        The path.
    Raises:
        UsageError: see `check_film_format`.
        OSError: see `written_aside`.
    """
    check_film_format(path)
    write: Writer = FILMS.get(path.suffix.lower()[1:])
    with written_aside(path) as stream:
        write(stream, (_even(_opaque(frame_CHW)) for frame_CHW in frames), frames_per_s)
    return path


@FILMS.add("mp4")
def _write_mp4(stream: BinaryIO, frames: Iterator[Pixels], frames_per_s: int) -> None:
    av = _av(Path("a film.mp4"))
    with av.open(stream, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        track = container.add_stream("libx264", rate=frames_per_s, options={"crf": QUALITY_CRF, "threads": "1"})
        track.pix_fmt = "yuv420p"
        first = next(frames)
        track.height, track.width = first.shape[:2]
        for pixels in chain([first], frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="gray" if pixels.ndim == 2 else "rgb24")
            container.mux(track.encode(frame))
        container.mux(track.encode())


@FILMS.add("gif")
def _write_gif(stream: BinaryIO, frames: Iterator[Pixels], frames_per_s: int) -> None:
    _write_with_pillow(stream, frames, frames_per_s, format="GIF")


@FILMS.add("webp")
def _write_webp(stream: BinaryIO, frames: Iterator[Pixels], frames_per_s: int) -> None:
    _write_with_pillow(stream, frames, frames_per_s, format="WEBP", lossless=True)


def _write_with_pillow(stream: BinaryIO, frames: Iterator[Pixels], frames_per_s: int, **options: Any) -> None:
    images = (Image.fromarray(pixels) for pixels in frames)
    duration_ms = round(MILLISECONDS / frames_per_s)
    first = next(images)
    first.save(stream, save_all=True, append_images=images, duration=duration_ms, loop=0, **options)


def _opaque(frame_CHW: Tensor) -> Pixels:
    pixels: Pixels = frame_CHW.permute(1, 2, 0).contiguous().cpu().numpy()
    if pixels.shape[2] == 1:
        return pixels[:, :, 0]
    if pixels.shape[2] == 3:
        return pixels
    image = Image.fromarray(pixels)
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def _even(pixels: Pixels) -> Pixels:
    odd = [(0, length % 2) for length in pixels.shape[:2]]
    return np.pad(pixels, [*odd, *[(0, 0)] * (pixels.ndim - 2)], constant_values=WHITE)


def _av(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise UsageError(
            f"{path}: MP4 is written with PyAV, which is not installed; `pip install 'bigtrain[report]'`, or write a "
            ".gif or .webp"
        ) from error
    return av
