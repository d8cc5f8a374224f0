"""Where the tars of a data set keep the label of a sample, and how it is read: never run, never unpickled.

A label's place is one word of the index: "cls" (the text of the `.cls` member), or "json:KEY" (a value of the `.json`
member; dots in KEY step into nested objects). What is found there is a whole number or the name of a class. Numbers are
labels as they are; where any is a name, all are names, and labels follow the sorted names.
"""

import json
from collections.abc import Iterable
from typing import Any

from bigtrain.data.index import CLS_NUMBERS, NO_LABEL
from bigtrain.recipe.errors import DataError

JSON_PREFIX = "json:"
MAX_LABEL_BYTES = 1 << 20  # of a `.cls` or `.json` member
MAX_NAME_CHARACTERS = 200
MAX_CLASSES = 1 << 20  # larger numbers are identifiers, not labels

RawLabel = int | str
"""A label as it stands in the tar: a number of 0 or more, or a name."""

KEEP_UNLABELLED = "keep such images without one with --unlabelled keep"


class NoLabelError(ValueError):
    """There is no label: nothing where it should be, or what stands for none."""


def label_extension(place: str) -> str:
    """Return the extension of the member that holds labels."""
    return "json" if place.startswith(JSON_PREFIX) else CLS_NUMBERS


def read_label(data: bytes, place: str) -> RawLabel:
    """Return the label in the content of a `.cls` or `.json` member.

    Raises:
        NoLabelError: there is none.
        ValueError: what is there is none; both say why (a phrase that continues "its label ...").
    """
    if len(data) > MAX_LABEL_BYTES:
        raise ValueError(f"lies in {len(data)} bytes, more than a label needs ({MAX_LABEL_BYTES})")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is no text ({error.reason})") from error
    if place.startswith(JSON_PREFIX):
        return checked_label(_step_into(text, place.removeprefix(JSON_PREFIX)))
    return checked_label(text.strip())


def _step_into(text: str, key: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"lies in text that is no JSON ({error})") from error
    if isinstance(value, dict) and key in value:
        return value[key]
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            known = f"its keys are {', '.join(sorted(map(str, value))[:9])}" if isinstance(value, dict) else "no object"
            raise NoLabelError(f"is not under {key!r} ({known})")
        value = value[part]
    return value


def checked_label(value: Any) -> RawLabel:
    """Return a label as it stands in a file, digits as a number.

    Raises:
        NoLabelError: it stands for none: null, or -1.
        ValueError: it is no label (a phrase that continues "its label ...").
    """
    if value is None:
        raise NoLabelError("is missing (null, or empty)")
    if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdigit():
        digits = value.lstrip("-0") or "0"
        value = int(digits[: len(str(MAX_CLASSES)) + 1]) * (-1 if value[0] == "-" else 1)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"is a {type(value).__name__}, not a whole number or a name")
    if isinstance(value, int) and not 0 <= value < MAX_CLASSES:
        kind = NoLabelError if value == NO_LABEL else ValueError
        raise kind(f"is {value}, but labels run from 0 and stay under {MAX_CLASSES}")
    if isinstance(value, str) and not (0 < len(value) <= MAX_NAME_CHARACTERS and value.isprintable()):
        raise ValueError(f"is {value[:20]!r}, not a name of 1 to {MAX_NAME_CHARACTERS} printable characters")
    return value


def class_names(labels: Iterable[RawLabel]) -> tuple[str, ...]:
    """Return the name of each label 0..n-1 for all labels of a data set: numbers up to the largest, or sorted names."""
    found = set(labels)
    if all(isinstance(label, int) for label in found):
        largest = max((int(label) for label in found), default=-1)
        return tuple(str(label) for label in range(largest + 1))
    return tuple(sorted({str(label) for label in found}))


def numbers_of(classes: tuple[str, ...]) -> dict[str, int]:
    """Return the number of each name.

    Raises:
        DataError: two classes have one name.
    """
    numbers = {name: label for label, name in enumerate(classes)}
    if len(numbers) != len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise DataError(f"class {twice!r} is named twice; give every class a name of its own")
    return numbers
