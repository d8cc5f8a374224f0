"""Images in a zip file, with the labels of the `dataset.json` that StyleGAN's tool writes. Nothing is unpacked."""

import json
import os
import stat
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from bigtrain.data.index import NO_LABEL
from bigtrain.data.labels import KEEP_UNLABELLED
from bigtrain.data.sources.found import Found, Source, by_suffix, is_image
from bigtrain.data.sources.named import pairs_of, read_named, with_labels
from bigtrain.data.tar import MAX_MEMBER_BYTES
from bigtrain.recipe.errors import DataError, UsageError

DATASET = "dataset.json"
LABELS = ("dataset", "folders", "none")
"""Where labels of a zip can come from, beside csv:FILE and json:FILE."""


def find_zip(path: Path, labels: str = "dataset", keep_unlabelled: bool = False) -> Found:
    """Return the images of a zip in the order of their names.

    Args:
        path: the zip file.
        labels: "dataset": of `dataset.json`, none where it has none; "folders": the folder an image lies in; "none";
            or csv:FILE, json:FILE.
        keep_unlabelled: whether images without a label are kept among labelled ones.

    Raises:
        UsageError: no such place of labels.
        DataError: no zip, a member that is encrypted, a link, too large or of a name that leaves the folder; no image;
            labels that do not fit.
    """
    named = read_named(labels)
    if named is None and labels not in LABELS:
        raise UsageError(f"--labels is {labels!r}; choose one of {', '.join(LABELS)}, csv:FILE, json:FILE")
    members = _members(path)
    names = [name for name in members if is_image(PurePosixPath(name))]
    if not names:
        raise DataError(f"{path} holds no image among {len(members)} files; name a zip of images")
    others = [PurePosixPath(name) for name in members if name not in set(names) and name != DATASET]
    sources = [Source(path / name, NO_LABEL, (str(path), name)) for name in names]
    found = Found((), sources, by_suffix(others), read_member, "zip of images")
    if named is not None:
        return with_labels(found, names, *named, keep_unlabelled)
    if labels == "folders":
        by_folder = [(name, _folder(path, name, keep_unlabelled)) for name in names]
        return with_labels(found, names, f"{path}, by folders,", by_folder, keep_unlabelled)
    pairs = _dataset(path) if labels == "dataset" and DATASET in members else []
    if keep_unlabelled and labels == "dataset" and not pairs:
        raise DataError(f"{path} has no labels in a {DATASET}, so there are no classes; leave --unlabelled keep out")
    return with_labels(found, names, f"{DATASET} in {path}", pairs, keep_unlabelled) if pairs else found


def _folder(path: Path, name: str, keep_unlabelled: bool) -> str | None:
    parts = PurePosixPath(name).parts
    if len(parts) >= 2:
        return parts[0]
    if not keep_unlabelled:
        raise DataError(
            f"image {name!r} in {path} lies in no folder; give every class a folder, {KEEP_UNLABELLED}, or say "
            "--labels none"
        )
    return None


def _members(path: Path) -> dict[str, zipfile.ZipInfo]:
    try:
        entries = _opened(str(path), os.getpid()).infolist()
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no whole zip ({error}); copy it again from its source") from error
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        if entry.is_dir():
            continue
        refusal = _refusal(entry) or ("which is there twice" if entry.filename in found else None)
        if refusal:
            raise DataError(f"{path} has member {entry.filename!r}, {refusal}; do not trust this file, or mend it")
        if not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(entry.filename).parts):
            found[entry.filename] = entry
    return dict(sorted(found.items()))


def _refusal(entry: zipfile.ZipInfo) -> str | None:
    name = PurePosixPath(entry.filename)
    if name.is_absolute() or ".." in name.parts or "\\" in entry.filename:
        return "whose name leaves the folder"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "which is a link"
    if entry.flag_bits & 1:
        return "which is encrypted"
    if entry.file_size > MAX_MEMBER_BYTES:
        return f"which claims {entry.file_size} bytes, more than an image needs ({MAX_MEMBER_BYTES})"
    return None


def _dataset(path: Path) -> list[tuple[str, Any]]:
    try:
        return pairs_of(json.loads(_opened(str(path), os.getpid()).read(DATASET)))
    except (ValueError, RecursionError, OSError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(
            f'{DATASET} in {path} is not {{"labels": [[name, class], ...]}} ({error}); mend it, or name other labels '
            "with --labels"
        ) from error


def read_member(source: Source) -> bytes:
    """Return the bytes of an image in a zip.

    Raises:
        ValueError: it is damaged.
    """
    path, name = source.place
    try:
        return _opened(str(path), os.getpid()).read(str(name))
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"cannot be read from the zip: {error}") from error


@lru_cache(maxsize=4)
def _opened(path: str, process: int) -> zipfile.ZipFile:
    """Open a zip once a process; a forked one must not share the place in the file."""
    return zipfile.ZipFile(path)
