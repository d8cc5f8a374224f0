"""One tar that others wrote, read once: its samples, their labels as they stand there, and what belongs to no sample.

Departs from WebDataset, which ends a key at the first dot of a name: `n01.v2.jpg` is there a field "v2.jpg" of "n01",
and several such images become one sample. Here it is the image of "n01.v2", unless the shard has a plain `n01.jpg`
(then it is a companion, such as a mask, and is counted as left out). `n01.a.jpg` and `n01.b.jpg` are the pair "n01".
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from bigtrain.data.decode import DEFAULT_MAX_PIXELS
from bigtrain.data.header import BYTE_BITS, Header, read_header
from bigtrain.data.index import CLS_NUMBERS, Pairing
from bigtrain.data.labels import (
    JSON_PREFIX,
    KEEP_UNLABELLED,
    NoLabelError,
    RawLabel,
    label_extension,
    read_label,
)
from bigtrain.data.pairs import SIDES
from bigtrain.data.tar import IMAGE_EXTENSIONS, Member, members
from bigtrain.data.writer import file_sha256
from bigtrain.recipe.errors import DataError

CHANNELS = (1, 3, 4)
REWRITE = "write them in one size and form with `bigtrain shards resize`"


@dataclass(frozen=True)
class IndexOptions:
    """Where labels are, and what is refused."""

    label_key: str | None = None
    """Key of the label in `.json` members; None: `.cls` members, or no labels where there are none."""
    without_labels: bool = False
    """Whether labels are ignored."""
    max_pixels: int = DEFAULT_MAX_PIXELS
    keep_unlabelled: bool = False
    """Whether samples without a label are kept among labelled ones."""
    pairing: Pairing | None = None
    """What a sample is; None: a pair where names end in `.a.` and `.b.` and an extension, else an image."""

    @property
    def place(self) -> str:
        """Where labels are, as the index says it."""
        return CLS_NUMBERS if self.label_key is None else JSON_PREFIX + self.label_key


@dataclass(frozen=True)
class Found:
    """One image of a shard: where it lies, what it claims to be, and its label as it stands there."""

    key: str
    offset: int
    size: int
    crc32: int
    header: Header
    label: RawLabel | None
    second: "Found | None" = None
    """The second image of a pair by members."""

    @property
    def images(self) -> "tuple[Found, ...]":
        """This image, and the second one of a pair."""
        return (self,) if self.second is None else (self, self.second)


@dataclass(frozen=True)
class Walked:
    """All that one shard holds."""

    name: str
    bytes: int
    sha256: str
    samples: tuple[Found, ...]
    left_out: dict[str, int]
    """Members that are no part of a sample, by extension."""


@dataclass(frozen=True)
class _Seen:
    """One member: its place, and what its bytes told while they were there."""

    member: Member
    claim: Header | ValueError | None
    """Of an image: its header, or why it has none."""
    text: bytes | None
    """Of a label."""


def walk(options: IndexOptions, path: Path) -> Walked:
    """Read a tar once and return all that its index needs.

    Raises:
        DataError: the tar is damaged, or a member or sample is refused; names it.
    """
    seen = [_see(member, options) for member in members(path)]
    plain = {one.member.key for one in seen if one.member.extension in IMAGE_EXTENSIONS}
    images: dict[str, dict[str, _Seen]] = {}
    labels: dict[str, bytes] = {}
    left_out: Counter[str] = Counter()
    wanted = label_extension(options.place)
    for one in seen:
        member = one.member
        key, side, extension = _named(member, plain, options)
        if extension in IMAGE_EXTENSIONS:
            if images.setdefault(key, {}).setdefault(side, one) is not one:
                raise DataError(f"shard {path} has two images of sample {key!r}; give every sample a key of its own")
        elif extension == wanted and one.text is not None:
            if key in labels:
                raise DataError(f"shard {path} has two labels of sample {key!r}; give every sample a key of its own")
            labels[key] = one.text
        else:
            left_out[extension] += 1
    left_out[wanted] += len(labels.keys() - images.keys())
    left_out.update(_companions(images))
    _refuse_lone(path, images)
    samples = tuple(_sample(path, key, sides, labels.get(key), options) for key, sides in images.items())
    return Walked(path.name, path.stat().st_size, file_sha256(path), samples, dict(+left_out))


def _named(member: Member, plain: set[str], options: IndexOptions) -> tuple[str, str, str]:
    """Return the key of the sample that a member belongs to, which image of a pair it is ("" for none), and its
    extension."""
    if member.key in plain:
        return member.key, "", member.extension
    stem, extension = member.last_split
    key, dot, side = stem.rpartition(".")
    if options.pairing in (None, "members") and extension in IMAGE_EXTENSIONS and dot and side in SIDES:
        return key, side, extension
    return stem, "", extension


def _companions(images: dict[str, dict[str, _Seen]]) -> Counter[str]:
    """Take away, and count by extension, what looks like one of a pair beside a plain image of the same key."""
    return Counter(
        f"{side}.{sides.pop(side).member.last_split[1]}"
        for sides in images.values()
        for side in SIDES
        if "" in sides and side in sides
    )


def _refuse_lone(path: Path, images: dict[str, dict[str, _Seen]]) -> None:
    """Refuse pairs of which one image is missing, and single images among pairs.

    Raises:
        DataError: names the first.
    """
    single = next((key for key, sides in images.items() if "" in sides), None)
    for key, sides in images.items():
        if "" in sides:
            continue
        way_out = "complete the pairs at their source, or say --pairs none if these are single images"
        if len(sides) < len(SIDES):
            lack = next(side for side in SIDES if side not in sides)
            raise DataError(f"shard {path}, sample {key!r} has one image of a pair and no .{lack}.; {way_out}")
        if single is not None:
            raise DataError(f"shard {path} holds the pair {key!r} and the single image {single!r}; {way_out}")


def _sample(path: Path, key: str, sides: dict[str, _Seen], text: bytes | None, options: IndexOptions) -> Found:
    first, *second = (_found(path, key, sides[side], text, options) for side in sorted(sides))
    return replace(first, second=second[0]) if second else first


def _see(member: Member, options: IndexOptions) -> _Seen:
    extension = member.last_split[1]
    light = replace(member, data=b"")
    if extension in IMAGE_EXTENSIONS:
        try:
            return _Seen(light, read_header(member.data), None)
        except ValueError as error:
            return _Seen(light, error, None)
    is_label = extension == label_extension(options.place) and not options.without_labels
    return _Seen(light, None, member.data if is_label else None)


def _found(path: Path, key: str, one: _Seen, text: bytes | None, options: IndexOptions) -> Found:
    where, header, member = f"shard {path}, sample {key!r}: the image", one.claim, one.member
    if not isinstance(header, Header):
        raise DataError(f"{where} {header}; remove the sample at its source")
    if header.pixels > options.max_pixels:
        raise DataError(
            f"{where} claims {header.width}x{header.height} pixels, over the limit of {options.max_pixels}; remove the "
            "sample at its source, or raise --max-pixels"
        )
    if header.bits > BYTE_BITS or header.channels not in CHANNELS:
        raise DataError(f"{where} has {header.channels} channels of {header.bits} bits ({header.colours}); {REWRITE}")
    return Found(key, member.offset, member.size, member.crc32, header, _label(path, key, text, options))


def _label(path: Path, key: str, data: bytes | None, options: IndexOptions) -> RawLabel | None:
    if data is None:
        return None
    try:
        return read_label(data, options.place)
    except ValueError as error:
        is_absent = isinstance(error, NoLabelError)
        if is_absent and options.keep_unlabelled:
            return None
        keep = f"{KEEP_UNLABELLED}, " if is_absent else ""
        raise DataError(
            f"shard {path}, sample {key!r}: its label {error}; mend it at its source, name another --label-key, {keep}"
            "or leave labels out with --no-labels"
        ) from error
