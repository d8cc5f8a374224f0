"""What every source gives: images in a fixed order, with labels, and a picklable way to open one."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from PIL import Image

from bigtrain.data.index import Pairing

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


@dataclass(frozen=True)
class Source:
    """One image and its label; -1: none."""

    path: Path
    """Where it is, for messages; of a member, below the file that holds it."""
    label: int
    place: tuple[str | int, ...] = ()
    """What `Found.open` needs beyond the path."""
    second: "Source | None" = None
    """The second image of a pair by members."""

    @property
    def images(self) -> "tuple[Source, ...]":
        """This image, and the second one of a pair."""
        return (self,) if self.second is None else (self, self.second)


Opener = Callable[[Source], bytes | Image.Image]
"""Returns the stored bytes of an image, or its pixels; picklable, since other processes call it.

Raises:
    ValueError: the image cannot be had; a phrase that continues "the image ...".
"""


def read_file(source: Source) -> bytes:
    """Return the bytes of an image that is a file."""
    return source.path.read_bytes()


@dataclass(frozen=True)
class Found:
    """What lies under a source."""

    classes: tuple[str, ...]
    """Name of each label 0..n-1; empty where images have no labels."""
    sources: list[Source]
    """The images, in a fixed order."""
    other_files: dict[str, int]
    """Files that are no images, by suffix."""
    open: Opener = read_file
    kind: str = "folder of images"
    """What the index says of where images come from."""
    notes: tuple[str, ...] = ()
    """Sentences that the user should read."""
    pairing: Pairing = "none"
    """What a source is: an image, a pair of images, or one to be cut into two."""


def is_image(path: PurePath) -> bool:
    """Tell whether a name is that of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def by_suffix(files: Iterable[PurePath]) -> dict[str, int]:
    """Count files by suffix."""
    return dict(Counter(path.suffix for path in files))


def some(names: Sequence[object], most: int = 3) -> str:
    """Return the first few of many names, for messages."""
    return ", ".join(map(str, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
