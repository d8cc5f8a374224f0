"""From the members of one shard to its samples: an image, and its label where the data set has classes.

Members of a sample lie beside each other, as WebDataset has them. A name with several dots is read as
`data/walk.py` reads it: `n01.v2.jpg` is the image of "n01.v2", unless a plain `n01.jpg` lies beside it; then it is a
companion, such as a mask, and is left out. Members of two shards never meet here: each shard is grouped by itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bigtrain.data.index import NO_LABEL
from bigtrain.data.labels import MAX_LABEL_BYTES, label_extension, read_label
from bigtrain.data.stream.tars import TarFaultError
from bigtrain.data.tar import IMAGE_EXTENSIONS, Member
from bigtrain.recipe.image import ImageSpec

HELD_MEMBERS = 64  # of one key before its first dot, among which a plain image is looked for
HELD_BYTES = 64 << 20  # of those
SPARE_BYTES = 16 << 20  # of an encoded image over twice its pixels: profiles, thumbnails, captions


@dataclass(frozen=True)
class Sample:
    """One image as stored and its label (-1 without classes); `row` counts the images of the shard."""

    shard: int
    row: int
    key: str
    label: int
    data: bytes


@dataclass(frozen=True)
class Fault:
    """What is bad about a sample, or about the rest of a shard (then `key` may be empty): a phrase."""

    shard: int
    row: int
    key: str
    reason: str


@dataclass(frozen=True)
class SampleRules:
    """What is a sample of a data set."""

    image: ImageSpec
    label_place: str
    """As `data/labels.py` says it."""

    @property
    def has_labels(self) -> bool:
        """Whether samples need a label."""
        return self.image.num_classes > 0

    def most_bytes(self, extension: str) -> int:
        """Return how much is read at most of a member; 0 of those that nothing is wanted of."""
        last = extension.rpartition(".")[2]
        if last in IMAGE_EXTENSIONS:
            height, width = self.image.size
            return 2 * height * width * self.image.channels + SPARE_BYTES
        return MAX_LABEL_BYTES if self.has_labels and last == label_extension(self.label_place) else 0

    def label(self, texts: Sequence[bytes]) -> int:
        """Return the label in the label members of one sample.

        Raises:
            ValueError: there is none, or none of this data set; says why (a phrase).
        """
        if not self.has_labels:
            return NO_LABEL
        extension = label_extension(self.label_place)
        if len(texts) != 1:
            raise ValueError(f"has {len(texts) or 'no'} .{extension} beside it, so no label")
        try:
            label = read_label(texts[0], self.label_place)
        except ValueError as error:
            raise ValueError(f"its label {error}") from error
        if isinstance(label, str):
            raise ValueError(f"its label is {label[:40]!r}; a stream knows numbers only, since names need an index")
        if label >= self.image.num_classes:
            raise ValueError(f"its label is {label}, but there are {self.image.num_classes} classes")
        return label


class ShardSamples:
    """Iterates the samples and faults of one shard, each as soon as its members are known to be together."""

    def __init__(self, shard: int, members: Iterator[Member], rules: SampleRules) -> None:
        self._shard, self._members, self._rules = shard, members, rules
        self._rows = 0
        self._held: list[Member] = []
        self._plain_key: str | None = None  # of the group whose plain image was seen

    def __iter__(self) -> Iterator[Sample | Fault]:
        try:
            for member in self._members:
                if not self._rules.most_bytes(member.extension):
                    continue
                if self._held and member.key != self._held[0].key:
                    yield from self._release()
                elif self._is_full():
                    yield from self._release(but=member.last_split[0])
                if member.extension in IMAGE_EXTENSIONS:
                    self._plain_key = member.key
                self._held.append(member)
        except TarFaultError as error:
            key = self._held[0].key if self._held else ""
            whole = list(self._release()) if self._is_whole() else []
            yield from whole
            yield Fault(self._shard, self._rows, "" if whole else key, str(error))
            return
        yield from self._release()
        if not self._rows:
            yield Fault(self._shard, 0, "", f"holds no image ({', '.join(IMAGE_EXTENSIONS)})")

    def _is_full(self) -> bool:
        held = self._held
        return len(held) >= HELD_MEMBERS or (len(held) > 1 and sum(len(member.data) for member in held) > HELD_BYTES)

    def _is_whole(self) -> bool:
        """Whether what is held is all that a sample needs, although the tar breaks off behind it."""
        plain = [member.extension for member in self._held]
        has_label = not self._rules.has_labels or label_extension(self._rules.label_place) in plain
        return has_label and not set(IMAGE_EXTENSIONS).isdisjoint(plain)

    def _release(self, but: str | None = None) -> Iterator[Sample | Fault]:
        """Yield the samples among the members that were held, which have one key before the first dot.

        Args:
            but: key before the last dot of the sample that goes on, which is held further if it is not all there is.
        """
        held = [member for member in self._held if member.last_split[0] != but]
        kept = [member for member in self._held if member.last_split[0] == but]
        held, self._held = (held, kept) if held else (kept, [])
        images: dict[str, list[Member]] = {}
        labels: dict[str, list[bytes]] = {}
        for member in held:
            is_plain = member.key == self._plain_key
            key, extension = (member.key, member.extension) if is_plain else member.last_split
            if extension in IMAGE_EXTENSIONS:
                images.setdefault(key, []).append(member)
            elif extension == label_extension(self._rules.label_place):
                labels.setdefault(key, []).append(member.data)
        for key, members in images.items():
            yield self._sample(key, members, labels.get(key, ()))
            self._rows += 1

    def _sample(self, key: str, images: Sequence[Member], labels: Sequence[bytes]) -> Sample | Fault:
        shown, image = key[:200], images[0]
        try:
            if len(images) > 1:
                raise ValueError(f"has {len(images)} images")
            if not image.data:
                most = self._rules.most_bytes(image.extension)
                raise ValueError(f"the image has {image.size} bytes, where one of its size has 1 to {most}")
            return Sample(self._shard, self._rows, shown, self._rules.label(labels), image.data)
        except ValueError as error:
            return Fault(self._shard, self._rows, shown, str(error))
