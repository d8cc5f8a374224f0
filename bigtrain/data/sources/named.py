"""Labels in a file beside the images: CSV, or JSON as StyleGAN's tool writes it.

CSV: two columns, the name of an image relative to its source and its label (empty: none); a first row that names no
image is a heading. JSON: `{"labels": [[name, label], ...]}` or `{name: label, ...}` (null: none). Labels are whole
numbers or names of classes; -1 stands for none.
"""

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from bigtrain.data.index import NO_LABEL
from bigtrain.data.labels import (
    KEEP_UNLABELLED,
    NoLabelError,
    RawLabel,
    checked_label,
    class_names,
    numbers_of,
)
from bigtrain.data.sources.found import Found, Source, some
from bigtrain.recipe.errors import DataError, UsageError

Pairs = list[tuple[str, Any]]


def read_named(labels: str) -> tuple[str, Pairs] | None:
    """Return the file and the pairs that `csv:FILE` or `json:FILE` names, or None for any other text.

    Raises:
        UsageError: no file is named.
        DataError: the file is missing or holds no pairs.
    """
    kind, colon, name = labels.partition(":")
    if kind not in _READERS or not colon:
        return None
    if not name:
        raise UsageError(f"--labels {labels} names no file; say {kind}:FILE")
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"labels {name} cannot be read ({error}); name a {kind.upper()} file") from error
    return name, _READERS[kind](name, text)


def _csv(name: str, text: str) -> Pairs:
    pairs = []
    for number, row in enumerate(csv.reader(text.splitlines()), start=1):
        if not row:
            continue
        if len(row) != 2:
            raise DataError(f"labels {name}, line {number} has {len(row)} columns, not an image and its label; mend it")
        pairs.append((row[0].strip(), row[1].strip() or None))
    return pairs


def _json(name: str, text: str) -> Pairs:
    try:
        return pairs_of(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f'labels {name} are not {{"labels": [[name, label], ...]}} or {{name: label}} ({error}); mend them'
        ) from error


_READERS: dict[str, Callable[[str, str], Pairs]] = {"csv": _csv, "json": _json}


def pairs_of(record: Any) -> Pairs:
    """Return (name, label) pairs of a decoded JSON file; empty where `labels` is null.

    Raises:
        ValueError: it has another form.
    """
    if not isinstance(record, dict):
        raise ValueError(f"a {type(record).__name__}, no object")
    listed = record.get("labels", record)
    if listed is None:
        return []
    rows = list(listed.items()) if isinstance(listed, dict) else listed
    if not isinstance(rows, list) or not all(isinstance(row, list | tuple) and len(row) == 2 for row in rows):
        raise ValueError("its labels are no list of pairs")
    return [(str(name), label) for name, label in rows]


def with_labels(found: Found, names: Iterable[str], where: str, pairs: Pairs, keep_unlabelled: bool = False) -> Found:
    """Return what was found with the labels of a file.

    Args:
        found: images, whose own labels are dropped.
        names: the name of each image relative to its source, as the file writes it.
        where: the file, for messages.
        pairs: names and labels.
        keep_unlabelled: whether images without a label are kept among labelled ones.

    Raises:
        DataError: an image has no label (unless it is to be kept) or two, or a label is none.
    """
    given = [(str(PurePosixPath(name)), label) for name, label in pairs]
    own = list(names)
    known = set(own)
    if given and given[0][0] not in known and len(given) > 1 and given[1][0] in known:
        given = given[1:]  # a heading
    labels: dict[str, RawLabel | None] = {}
    for name, label in given:
        value = _checked(f"{where}: the label of {name!r}", label, keep_unlabelled)
        if labels.setdefault(name, value) != value:
            raise DataError(f"{where} gives {name!r} the labels {labels[name]!r} and {value!r}; keep one")
    missing = [name for name in own if labels.get(name) is None]
    if missing and (len(missing) == len(own) or not keep_unlabelled):
        keep = f"{KEEP_UNLABELLED}, " if len(missing) < len(own) else ""
        raise DataError(
            f"{where} has no label for {len(missing)} of {len(own)} images ({some(missing)}); add them, {keep}or "
            "remove the images"
        )
    strangers = [name for name in labels if name not in known]
    notes = (f"{where} labels {len(strangers)} images that are not there: {some(strangers)}",) if strangers else ()
    return _labelled(found, [labels.get(name) for name in own], notes)


def _checked(whose: str, label: Any, keep_unlabelled: bool) -> RawLabel | None:
    try:
        return checked_label(label)
    except ValueError as error:
        is_absent = isinstance(error, NoLabelError)
        if is_absent and keep_unlabelled:
            return None
        raise DataError(f"{whose} {error}; mend it" + (f", or {KEEP_UNLABELLED}" if is_absent else "")) from error


def _labelled(found: Found, labels: list[RawLabel | None], notes: tuple[str, ...]) -> Found:
    classes = class_names(label for label in labels if label is not None)
    numbers = numbers_of(classes)
    label_N = [NO_LABEL if label is None else numbers[str(label)] for label in labels]
    sources = [replace(source, label=label) for source, label in zip(found.sources, label_N, strict=True)]
    return replace(found, classes=classes, sources=sources, notes=found.notes + notes)


def without_labels(found: Found) -> Found:
    """Return what was found without labels."""
    sources: list[Source] = [replace(source, label=NO_LABEL) for source in found.sources]
    return replace(found, classes=(), sources=sources)
