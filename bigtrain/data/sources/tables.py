"""Images in the columns of Parquet files, or of Arrow files as Hugging Face's `save_to_disk` writes them.

pyarrow alone reads them. An image is a struct with `bytes`, or bytes; a path without bytes is not followed. The bytes
are copied once to a file beside the shards to come, since a permuted order would otherwise read every group of rows
again and again.
"""

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bigtrain.data.index import NO_LABEL
from bigtrain.data.labels import (
    KEEP_UNLABELLED,
    NoLabelError,
    RawLabel,
    checked_label,
    class_names,
    numbers_of,
)
from bigtrain.data.sources.found import Found, Source
from bigtrain.data.sources.tars import read_place
from bigtrain.recipe.errors import DataError, UsageError

SPOOL = ".images-aside"
ROWS_TOGETHER = 256
SUFFIXES = (".parquet", ".arrow")


@dataclass(frozen=True)
class TableOptions:
    """Which columns are read."""

    image_column: str | None = None
    """None: the only column that holds images."""
    label_column: str | None = "label"
    """None: no labels."""
    keep_unlabelled: bool = False
    """Whether rows without a label are kept among labelled ones."""


@contextmanager
def found_in_tables(path: Path, folder: Path, options: TableOptions) -> Iterator[Found]:
    """Give the images of one file, or of all files in a folder by name; their copy goes when the block ends.

    Args:
        path: a .parquet or .arrow file, or a folder of them.
        folder: where shards will be written; the copy lies there meanwhile.
        options: columns.

    Raises:
        UsageError: pyarrow is missing.
        DataError: no such files or columns, a damaged file, a row without its image or label.
    """
    try:
        import pyarrow as arrow
    except ImportError as error:
        raise UsageError("Parquet and Arrow files need pyarrow; install `bigtrain[parquet]`") from error
    folder.mkdir(parents=True, exist_ok=True)
    spool = folder / SPOOL
    try:
        try:
            with spool.open("wb") as stream:
                found = _copy(_files(path), stream, spool, options)
        except (arrow.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read ({' '.join(str(error).split())}); copy it again") from error
        os.utime(spool, ns=(0, 0))  # what was copied is in the places; the time of copying says nothing
        yield found
    finally:
        spool.unlink(missing_ok=True)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} is neither a file nor a folder; name Parquet or Arrow files")
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if not files:
        splits = sorted(file.name for file in path.iterdir() if file.is_dir())
        way_out = f"name one of its folders: {', '.join(splits)}" if splits else "name Parquet or Arrow files"
        raise DataError(f"{path} holds no {' or '.join(SUFFIXES)} file; {way_out}")
    return files


def _copy(files: list[Path], stream: BinaryIO, spool: Path, options: TableOptions) -> Found:
    labels: list[RawLabel | None] = []
    sources: list[Source] = []
    names: tuple[str, ...] = ()
    offset = 0
    for file in files:
        row = -1
        for image, label, given in _rows(file, options):
            row, names = row + 1, given or names
            where = file / str(row)
            data = image.get("bytes") if isinstance(image, dict) else image
            if not isinstance(data, bytes):
                raise DataError(f"row {row} of {file} holds no bytes of an image; paths alone are not followed")
            if options.label_column is not None:
                labels.append(_label(where, label, options.keep_unlabelled))
            stream.write(data)
            sources.append(Source(where, NO_LABEL, (str(spool), offset, len(data), zlib.crc32(data))))
            offset += len(data)
    if not sources:
        raise DataError(f"{files[0].parent} holds no row; name files with images")
    if labels and set(labels) == {None}:
        raise DataError(f"{files[0].parent} has no label in any row; leave labels out with --no-labels")
    classes = names or class_names(label for label in labels if label is not None) if labels else ()
    numbers = {str(number): number for number in range(len(names))} if names else numbers_of(classes)
    for at, label in enumerate(labels):
        if label is None:
            continue
        if str(label) not in numbers:
            raise DataError(f"{sources[at].path} has label {label!r}, but there are {len(classes)} classes; mend it")
        sources[at] = Source(sources[at].path, numbers[str(label)], sources[at].place)
    return Found(classes, sources, {}, read_place, "table of images")


def _label(where: Path, value: Any, keep_unlabelled: bool) -> RawLabel | None:
    try:
        return checked_label(value)
    except ValueError as error:
        is_absent = isinstance(error, NoLabelError)
        if is_absent and keep_unlabelled:
            return None
        keep = f"{KEEP_UNLABELLED}, " if is_absent else ""
        raise DataError(f"{where}: its label {error}; mend it, {keep}or leave labels out with --no-labels") from error


def _rows(file: Path, options: TableOptions) -> Iterator[tuple[Any, Any, tuple[str, ...]]]:
    """Yield image, label and the names of classes, where the file gives them, for each row."""
    schema, batches = _opened(file)
    image, label = _columns(file, schema, options)
    names = _class_names(schema, label)
    for batch in batches([image] if label is None else [image, label]):
        images = batch.column(image).to_pylist()
        labels = [None] * len(images) if label is None else batch.column(label).to_pylist()
        yield from ((one, other, names) for one, other in zip(images, labels, strict=True))


def _opened(file: Path) -> tuple[Any, Any]:
    """Return the schema of a file and what reads batches of rows of some columns."""
    import pyarrow as arrow
    from pyarrow import parquet

    if file.suffix == ".parquet":
        table = parquet.ParquetFile(file)
        return table.schema_arrow, lambda columns: table.iter_batches(ROWS_TOGETHER, columns=columns)
    with file.open("rb") as stream:
        is_file = stream.read(6) == b"ARROW1"
    source = arrow.memory_map(str(file))
    if not is_file:
        reader = arrow.ipc.open_stream(source)
        return reader.schema, lambda columns: (batch.select(columns) for batch in reader)
    opened = arrow.ipc.open_file(source)
    numbers = range(opened.num_record_batches)
    return opened.schema, lambda columns: (opened.get_batch(number).select(columns) for number in numbers)


def _columns(file: Path, schema: Any, options: TableOptions) -> tuple[str, str | None]:
    from pyarrow import types

    def holds_images(column: Any) -> bool:
        if types.is_struct(column):
            return bool(column.get_field_index("bytes") >= 0)
        return bool(types.is_binary(column) or types.is_large_binary(column))

    fitting = [field.name for field in schema if holds_images(field.type)]
    image = options.image_column
    if image is None and len(fitting) == 1:
        image = fitting[0]
    if image is None or image not in fitting:
        raise DataError(
            f"{file} has the columns {', '.join(schema.names)}, of which {', '.join(fitting) or 'none'} can hold "
            "images; name one with --image-column"
        )
    label = options.label_column
    if label is not None and label not in schema.names:
        raise DataError(
            f"{file} has no column {label!r} but {', '.join(schema.names)}; name one with --label-column, or leave "
            "labels out with --no-labels"
        )
    return image, label


def _class_names(schema: Any, label: str | None) -> tuple[str, ...]:
    """Return the names that Hugging Face keeps beside the schema; empty where there are none."""
    try:
        record = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(str(name) for name in record["info"]["features"][label]["names"])
    except (KeyError, TypeError, ValueError):
        return ()
