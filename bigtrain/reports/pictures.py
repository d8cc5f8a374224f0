"""Pictures for a page that must not grow: WebP, as large and as good as a budget of bytes allows."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

RUNGS = ((1600, 90), (1280, 85), (1024, 80), (800, 72), (640, 65), (512, 55), (400, 45), (320, 35), (240, 25), (200, 9))
"""Longest side in pixels and quality of WebP, from the best down."""
MOST_FILM_BYTES = 600_000  # of a GIF or WebP that moves on the page; of a larger one the first frame is shown
SMALLEST_FILM_SIDE = 640  # rungs below it have no bytes for films
TRIALS = 5  # pictures whose sizes at a rung stand for all
MARGIN = 1.1  # of the budget, for pictures that are larger than those tried
HEAD = "data:image/webp;base64,"
UNREADABLE = (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Shown:
    """A picture as a page holds it."""

    uri: str
    width: int
    height: int


def encoded(paths: Sequence[Path], budget_bytes: int) -> dict[Path, Shown]:
    """Return pictures as data URIs that together take at most `budget_bytes`.

    All get the same largest side and quality; short films stay as they are. Where even the lowest is too much, every
    second picture is left out, and again, the last one never. Files that are no pictures are left out.
    """
    left = list(dict.fromkeys(paths))
    start = 0
    while left:
        for number, (side, quality) in enumerate(RUNGS[start:], start):
            if _estimate_bytes(left, side, quality) * MARGIN > budget_bytes and number < len(RUNGS) - 1:
                continue
            found = {path: shown for path in left for shown in [_encoded(path, side, quality)] if shown is not None}
            if sum(len(shown.uri) for shown in found.values()) <= budget_bytes:
                return found
        start = len(RUNGS) - 1
        left = left[::-1][::2][::-1] if len(left) > 1 else []
    return {}


def _estimate_bytes(paths: Sequence[Path], side: int, quality: int) -> float:
    tried = paths[:: max(1, len(paths) // TRIALS)]
    sizes = [len(shown.uri) for path in tried for shown in [_encoded(path, side, quality)] if shown is not None]
    return sum(sizes) / len(sizes) * len(paths) if sizes else 0.0


def _encoded(path: Path, side: int, quality: int) -> Shown | None:
    try:
        with Image.open(path) as opened:
            if getattr(opened, "is_animated", False) and side >= SMALLEST_FILM_SIDE:
                raw = path.read_bytes()
                if len(raw) <= MOST_FILM_BYTES:
                    kind = str(Image.MIME[opened.format or ""])
                    return Shown(f"data:{kind};base64,{base64.b64encode(raw).decode()}", opened.width, opened.height)
            image = opened.convert("RGBA" if opened.mode in ("RGBA", "LA", "PA") else "RGB")
    except UNREADABLE:
        return None
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, format="WEBP", quality=quality)
    return Shown(HEAD + base64.b64encode(stream.getvalue()).decode(), image.width, image.height)


def shared_out(wanted: Mapping[str, Sequence[Path]], budget_bytes: int) -> dict[Path, Shown]:
    """Return the pictures of several parts of a page; what one part does not need goes to those after it.

    Args:
        wanted: part -> pictures, the part with the fewest first.
        budget_bytes: for all of them.
    """
    found: dict[Path, Shown] = {}
    for number, paths in enumerate(wanted.values()):
        share = (budget_bytes - sum(len(shown.uri) for shown in found.values())) // (len(wanted) - number)
        found.update(encoded([path for path in paths if path not in found], share))
    return found


def evenly(paths: Sequence[tuple[int, Path]], most: int) -> Iterator[tuple[int, Path]]:
    """Yield at most so many of them, evenly spaced, the first and the last among them."""
    if len(paths) <= most:
        yield from paths
        return
    for number in range(most):
        yield paths[round(number * (len(paths) - 1) / (most - 1))]
