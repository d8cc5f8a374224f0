"""A folder of images, with or without classes, as shards."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bigtrain.data.index import NO_LABEL
from bigtrain.data.labels import KEEP_UNLABELLED
from bigtrain.data.pack import PackOptions, PackReport, pack, refuse_format
from bigtrain.data.pairs import SIDES
from bigtrain.data.sources.found import IMAGE_SUFFIXES, Found, Source, by_suffix, is_image, some
from bigtrain.data.sources.named import read_named, with_labels
from bigtrain.recipe.errors import DataError, UsageError


def write_folder(
    source: Path,
    folder: Path,
    options: PackOptions,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
    labels: str = "folders",
) -> PackReport:
    """Write the images under `source` as shards into `folder`, replacing the shards there.

    Args:
        source: one sub-folder a class; its name names the class, and labels follow the sorted names. With other
            `labels`: images in it and in its sub-folders.
        folder: where the shards go; must not lie inside `source`.
        options: size, fit, format.
        jobs: processes; the result does not depend on it.
        progress: called with (images done, images in all).
        labels: where labels come from, see `find`.

    Raises:
        DataError: no classes, no images, a file that cannot be used (unless `options.skip_bad`), or another writer.
        UsageError: the format cannot hold the channels.
    """
    refuse_format(options)
    return pack(find(source, labels), folder, options, jobs, progress)


def find(source: Path, labels: str = "folders", keep_unlabelled: bool = False) -> Found:
    """Return the images under `source`.

    Args:
        source: the folder.
        labels: where labels are: "folders", "none", "csv:FILE" or "json:FILE".
        keep_unlabelled: whether images without a label are kept among labelled ones.

    Raises:
        UsageError: `labels` is none of them.
        DataError: no images, or labels that do not fit.
    """
    named = read_named(labels)
    if named is not None:
        found = find_unlabelled(source)
        return with_labels(
            found, [path.path.relative_to(source).as_posix() for path in found.sources], *named, keep_unlabelled
        )
    if labels not in LABELS:
        raise UsageError(f"--labels is {labels!r}; choose one of {', '.join(LABELS)}, csv:FILE, json:FILE")
    return LABELS[labels](source, keep_unlabelled)


def find_pairs(source: Path, pairs: str, labels: str = "none", keep_unlabelled: bool = False) -> Found:
    """Return the pairs of images under `source`.

    Args:
        source: the folder.
        pairs: "folders": an image in `source/a` and the one of the same name in `source/b`; suffixes may differ.
            "halves": the left and the right half of each image in it.
        labels: as `find` takes them, of the first images.
        keep_unlabelled: likewise.

    Raises:
        UsageError: `labels` is none that is known.
        DataError: no images, labels that do not fit, or an image without a partner.
    """
    return PAIRS[pairs](source, labels, keep_unlabelled)


def _in_halves(source: Path, labels: str, keep_unlabelled: bool) -> Found:
    kind = "folder of images, whose left and right halves are pairs"
    return replace(find(source, labels, keep_unlabelled), kind=kind, pairing="halves")


def _in_two_folders(source: Path, labels: str, keep_unlabelled: bool) -> Found:
    folders = [source / side for side in SIDES]
    if not all(folder.is_dir() for folder in folders):
        raise DataError(
            f"{source} does not hold the folders {' and '.join(SIDES)}, in which images of one name are a pair; name "
            "the folder that does, or cut images in two with --pairs halves"
        )
    found, others = find(folders[0], labels, keep_unlabelled), find_unlabelled(folders[1])
    first, second = (_by_name(folder, each.sources) for folder, each in zip(folders, (found, others), strict=True))
    lone = [source.path for name, source in first.items() if name not in second]
    lone += [source.path for name, source in second.items() if name not in first]
    if lone:
        raise DataError(f"{len(lone)} images in {source} have no partner of their name: {some(lone)}; add or remove it")
    sources = [replace(one, second=second[name]) for name, one in first.items()]
    other_files = dict(Counter(found.other_files) + Counter(others.other_files))
    kind = "two folders of images, paired by name"
    return replace(found, sources=sources, other_files=other_files, kind=kind, pairing="members")


def _by_name(folder: Path, sources: list[Source]) -> dict[str, Source]:
    """Return images by their names in a folder without the suffix, in their order."""
    named: dict[str, Source] = {}
    for source in sources:
        other = named.setdefault(source.path.relative_to(folder).with_suffix("").as_posix(), source)
        if other is not source:
            raise DataError(f"{source.path} and {other.path} have one name, so a pair could be either; rename one")
    return named


PAIRS: dict[str, Callable[[Path, str, bool], Found]] = {"folders": _in_two_folders, "halves": _in_halves}


def find_classes(source: Path, keep_unlabelled: bool = False) -> Found:
    """Return the images under `source`, labelled by the sub-folder they lie in.

    Raises:
        DataError: no such folder, no sub-folder, a sub-folder without an image, or images outside the sub-folders
            (unless they are to be kept without a label).
    """
    folders, loose = _entries(source, "a sub-folder of images for each class")
    unlabelled = [Source(path, NO_LABEL) for path in loose if is_image(path)]
    if not folders or (unlabelled and not keep_unlabelled):
        keep = f"{KEEP_UNLABELLED}, " if folders else ""
        raise DataError(
            f"{source} holds {len(folders)} sub-folders and {len(unlabelled)} images beside them; put every image into "
            f"the sub-folder of its class, {keep}or write images without labels with --labels none"
        )
    sources: list[Source] = []
    other_files: list[Path] = []
    for label, folder in enumerate(folders):
        files = _files(folder)
        images = [path for path in files if is_image(path)]
        if not images:
            raise DataError(f"class {folder.name!r} in {source} has no image; fill or remove its folder")
        sources += [Source(path, label) for path in images]
        other_files += [path for path in files if not is_image(path)]
    return Found(tuple(path.name for path in folders), sources + unlabelled, by_suffix(other_files))


def find_unlabelled(source: Path) -> Found:
    """Return the images in `source` and in its sub-folders, without labels.

    Raises:
        DataError: no such folder, or no image in it.
    """
    folders, loose = _entries(source, "images")
    files = sorted(loose + [path for folder in folders for path in _files(folder)])
    sources = [Source(path, NO_LABEL) for path in files if is_image(path)]
    if not sources:
        raise DataError(
            f"{source} and its {len(folders)} sub-folders hold no image, known by its suffix "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}), among {len(files)} files; name the folder of the images"
        )
    return Found((), sources, by_suffix([path for path in files if not is_image(path)]))


def find_image_folder(root: Path, split: str = "train") -> Found:
    """Return what torchvision's ImageFolder reads: a folder a class, in `root/split` where it is there, else in `root`.
    Images beside these folders are left out, as there.

    Raises:
        DataError: no such folder, or it holds no classes, see `find_classes`.
    """
    below = root / split
    if not below.is_dir():
        if split != "train":
            raise DataError(f"{root} has no folder {split!r}; leave --split out where the classes lie right in it")
        below = root
    if not _entries(below, "a sub-folder of images for each class")[0]:
        raise DataError(
            f"{below} holds no sub-folder, and so no class; name the folder that torchvision would be given"
        )
    found = find_classes(below, keep_unlabelled=True)
    labelled = [source for source in found.sources if source.label != NO_LABEL]
    loose = by_suffix(source.path for source in found.sources if source.label == NO_LABEL)
    return replace(found, sources=labelled, other_files=dict(Counter(found.other_files) + Counter(loose)))


LABELS: dict[str, Callable[[Path, bool], Found]] = {
    "folders": find_classes,
    "none": lambda source, _: find_unlabelled(source),
}


def _entries(source: Path, content: str) -> tuple[list[Path], list[Path]]:
    """Return the folders and the files right in `source`, sorted, without hidden ones."""
    if not source.is_dir():
        raise DataError(f"{source} is no folder; name one that holds {content}")
    entries = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    return [path for path in entries if path.is_dir()], [path for path in entries if path.is_file()]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
