"""An index for WebDataset shards that others wrote, in parallel and without rewriting them.

Every member is read once: names and kinds are checked as `data/tar.py` does, images by their headers (nothing is
decompressed), labels as `data/labels.py` says. The index then says where each image lies, so that training reads these
shards as it reads our own. Samples stay in the order of the tars; training refuses shards that are sorted by class.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bigtrain.data.disk import only_writer
from bigtrain.data.header import Header
from bigtrain.data.index import (
    INDEX_NAME,
    NO_LABEL,
    FolderIndex,
    Pairing,
    ShardEntry,
    histogram,
    row_type,
    write_rows,
)
from bigtrain.data.labels import (
    KEEP_UNLABELLED,
    class_names,
    label_extension,
    numbers_of,
)
from bigtrain.data.pairs import IMAGES_EACH
from bigtrain.data.process import run_jobs
from bigtrain.data.tar import IMAGE_EXTENSIONS
from bigtrain.data.walk import REWRITE, Found, IndexOptions, Walked, walk
from bigtrain.recipe.errors import DataError

PACKED = (".tgz", ".tar.gz", ".tar.xz", ".tar.zst")
SOURCE = "shards of others, indexed where they lie"


@dataclass(frozen=True)
class IndexReport:
    """What was indexed, and what was left out."""

    index: FolderIndex
    left_out: dict[str, int]
    empty_shards: tuple[str, ...]


def index_folder(
    folder: Path,
    options: IndexOptions,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> IndexReport:
    """Write `index.json` and the rows of every tar in `folder`; the tars stay as they are.

    Args:
        folder: holds the tars, not in sub-folders.
        options: where labels are.
        jobs: processes; the result does not depend on it.
        progress: called with (shards done, shards in all).

    Raises:
        DataError: no shards, an index of shards that bigtrain wrote, a tar that is damaged or holds what no data set
            needs, a sample without its label, images of several sizes, or a folder that cannot be written.
    """
    paths = _unindexed(folder)
    try:
        with only_writer(folder):
            walked: list[Walked] = []
            for shard in run_jobs(partial(walk, options), paths, jobs):
                walked.append(shard)
                if progress:
                    progress(len(walked), len(paths))
            return _write(folder, walked, options)
    except OSError as error:
        raise DataError(
            f"the index of {folder} cannot be written ({error.strerror}); it lies beside the shards, so copy or link "
            "them into a folder of your own"
        ) from error


def _unindexed(folder: Path) -> list[Path]:
    if (folder / INDEX_NAME).exists() and FolderIndex.read(folder).source != SOURCE:
        raise DataError(
            f"{folder} has an index that was written with its shards; check it with `bigtrain shards check`, or delete "
            f"{INDEX_NAME} to have one made from the tars alone"
        )
    return shard_paths(folder)


def shard_paths(folder: Path) -> list[Path]:
    """Return the tars of a folder by name.

    Raises:
        DataError: there are none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name the one that holds the shards")
    paths = sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))
    if not paths:
        packed = len([path for path in folder.iterdir() if path.name.endswith(PACKED)])
        way_out = (
            f", but {packed} compressed ones; unpack them, since a sample is read by its place"
            if packed
            else "; name the folder of the shards itself"
        )
        raise DataError(f"{folder} holds no *.tar{way_out}")
    return paths


def _write(folder: Path, walked: list[Walked], options: IndexOptions) -> IndexReport:
    filled = [shard for shard in walked if shard.samples]
    left_out = Counter[str]()
    for shard in walked:
        left_out.update(shard.left_out)
    if not filled:
        raise DataError(
            f"{folder}: no shard of {len(walked)} holds an image ({', '.join(IMAGE_EXTENSIONS)}); its members are "
            f"{dict(left_out)}"
        )
    header, pairing = _one_form(folder, filled), one_pairing(folder, filled, options)
    width = header.width // IMAGES_EACH[pairing] if pairing == "halves" else header.width
    classes = label_all(folder, filled, options, left_out)
    index = FolderIndex(
        resolution=(header.height, width),
        channels=header.channels,  # type: ignore[arg-type]
        image_format=header.kind,  # type: ignore[arg-type]
        classes=classes,
        resize={},
        seed=0,
        source=SOURCE,
        shards=(),
        labels=options.place,
        pairing=pairing,
    )
    numbers = numbers_of(classes)
    index = index.model_copy(update={"shards": tuple(_entry(folder, shard, numbers, pairing) for shard in filled)})
    found = index.problems()
    if found:
        raise DataError(f"{folder}: {found[0]}; {REWRITE}")
    index.write(folder)
    return IndexReport(index, dict(left_out), tuple(shard.name for shard in walked if not shard.samples))


def _one_form(folder: Path, walked: list[Walked]) -> Header:
    """Return what all images claim to be.

    Raises:
        DataError: they differ in size or channels; names the first that differs.
    """
    first = walked[0].samples[0].header
    for shard, sample, header in _headers(walked):
        if (header.width, header.height, header.channels) != (first.width, first.height, first.channels):
            raise DataError(
                f"{folder}: images differ: the first is {_form(first)}, and sample {sample.key!r} of shard {shard} is "
                f"{_form(header)}; {REWRITE}"
            )
    return first


def one_pairing(folder: Path, walked: list[Walked], options: IndexOptions) -> Pairing:
    """Return what samples are.

    Raises:
        DataError: pairs in some shards and single images in others, or images that cannot be cut in halves.
    """
    if options.pairing == "halves":
        width = walked[0].samples[0].header.width
        if width % 2:
            raise DataError(
                f"{folder}: images are {width} pixels wide, which is odd, so they have no halves; write them with an "
                "even width by `bigtrain shards resize`"
            )
        return "halves"
    paired = {shard.samples[0].second is not None: shard.name for shard in walked}
    if len(paired) > 1:
        raise DataError(
            f"{folder}: shard {paired[True]} holds pairs and shard {paired[False]} single images; move one kind into "
            "a folder of its own"
        )
    if options.pairing == "members" and False in paired:
        raise DataError(
            f"{folder}: shard {paired[False]} holds single images, not pairs named KEY.a.png and KEY.b.png; leave "
            "--pairs members out"
        )
    return "members" if True in paired else "none"


def _form(header: Header) -> str:
    return f"{header.width}x{header.height}x{header.channels}"


def label_all(
    folder: Path, walked: list[Walked], options: IndexOptions, left_out: Mapping[str, int]
) -> tuple[str, ...]:
    """Return the classes of what was found; empty where nothing has a label.

    Raises:
        DataError: some samples have a label and others none, unless those are to be kept; or labels are where nobody
            looked.
    """
    labelled = [sample.label for _, sample in _samples(walked) if sample.label is not None]
    if not labelled and options.label_key is None:
        num_json = left_out.get("json", 0) or left_out.get(".json", 0)
        if num_json and not options.without_labels:
            raise DataError(
                f"{folder}: no sample has a .cls, but {num_json} have a .json; say which of its keys is the "
                "label with --label-key KEY, or that there are none with --no-labels"
            )
        if options.keep_unlabelled:
            raise DataError(
                f"{folder}: no sample has a label, so there are no classes; leave --unlabelled keep out, and "
                "labels with --no-labels"
            )
        return ()
    for shard, sample in _samples(walked):
        if sample.label is None and not (options.keep_unlabelled and labelled):
            keep = f"{KEEP_UNLABELLED}, " if labelled else ""
            raise DataError(
                f"{folder}: sample {sample.key!r} of shard {shard} has no .{label_extension(options.place)}, though "
                f"{len(labelled)} others have one; mend it at its source, {keep}or leave labels out with --no-labels"
            )
    return class_names(label for label in labelled)


def _samples(walked: list[Walked]) -> Iterator[tuple[str, Found]]:
    return ((shard.name, sample) for shard in walked for sample in shard.samples)


def _headers(walked: list[Walked]) -> Iterator[tuple[str, Found, Header]]:
    return ((shard, sample, image.header) for shard, sample in _samples(walked) for image in sample.images)


def _entry(folder: Path, shard: Walked, numbers: dict[str, int], pairing: Pairing) -> ShardEntry:
    key_bytes = max(len(sample.key.encode()) for sample in shard.samples)
    rows = np.empty(len(shard.samples), dtype=row_type(key_bytes, pairing))
    for row, sample in zip(rows, shard.samples, strict=True):
        label = NO_LABEL if sample.label is None else numbers[str(sample.label)]
        row["offset"], row["size"], row["crc32"] = sample.offset, sample.size, sample.crc32
        row["label"], row["key"] = label, sample.key.encode()
        if sample.second is not None:
            second = sample.second
            row["offset_b"], row["size_b"], row["crc32_b"] = second.offset, second.size, second.crc32
    counts = histogram(rows["label"])
    draft = {"name": shard.name, "bytes": shard.bytes, "sha256": shard.sha256, "samples": len(rows)}
    try:
        entry = ShardEntry.model_validate({**draft, "index_sha256": "0" * 64, "class_histogram": counts})
    except ValueError as error:
        raise DataError(
            f"shard {shard.name!r} in {folder} has a name that recipes and indexes cannot hold; rename it to letters, "
            "digits, dots, dashes and underscores"
        ) from error
    return entry.model_copy(update={"index_sha256": write_rows(folder / entry.index_name, rows)})
