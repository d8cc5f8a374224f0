"""Writes the tables of docs/recipes.md from the schema: `python tools/make_recipe_docs.py [--check]`.

One table for each settings class that a recipe can hold, outermost first. Only what stands between the two marks is
written; the text around it is a person's.
"""

import re
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from bigtrain.recipe.anatomy import kind_of
from bigtrain.recipe.errors import EXIT_DONE
from bigtrain.recipe.schedule import Constant, Cosine, Schedule
from bigtrain.recipe.units import format_count, parse_count, parse_duration_s, parse_share
from bigtrain.training.schema import Recipe
from bigtrain.training.state import FREE_KEYS

TARGET = Path(__file__).resolve().parent.parent / "docs" / "recipes.md"
FIRST = "<!-- from here to the other mark: written by tools/make_recipe_docs.py -->"
LAST = "<!-- end of what tools/make_recipe_docs.py writes -->"
HEAD = "| key | value | default | meaning |\n| --- | --- | --- | --- |"
UNITS: dict[Callable[..., Any], str] = {parse_count: "count", parse_duration_s: "duration", parse_share: "share"}
NOUNS = {int: "whole number", float: "number", str: "text", bool: "true or false"}
SCHEDULE_PARTS = typing.get_args(typing.get_args(Schedule)[0])
BOUNDS = ((Ge, "ge", "≥", max), (Gt, "gt", ">", max), (Le, "le", "≤", min), (Lt, "lt", "<", min))
"""Annotation, its attribute, its sign, and which of several binds."""


@dataclass(frozen=True)
class Section:
    """One settings class at its place in a recipe."""

    path: str
    model: type[BaseModel]

    @property
    def title(self) -> str:
        """The heading: where the keys stand, and the kind that chooses them."""
        kind = kind_of(self.model)
        return (f"`{self.path}`" if self.path else "Top level") + (f" with `kind: {kind}`" if kind else "")

    @property
    def about(self) -> str:
        """The first paragraph of the class's docstring, on one line."""
        return " ".join((self.model.__doc__ or "").partition("\n\n")[0].split())


def sections(model: type[BaseModel] = Recipe, path: str = "") -> Iterator[Section]:
    """Yield the settings classes below and including `model`, each before those that it holds."""
    yield Section(path, model)
    for name, field in model.model_fields.items():
        for suffix, inner in settings_in(field.annotation):
            yield from sections(inner, f"{path}.{name}".lstrip(".") + suffix)


def settings_in(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the settings classes that a field may hold, and how keys of entries of a list or mapping go on."""
    if annotation in SCHEDULE_PARTS or annotation == Schedule:
        return
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "", annotation
    elif origin is typing.Annotated:
        yield from settings_in(arguments[0])
    elif origin is dict:
        yield from ((f".PLAYER{suffix}", model) for suffix, model in settings_in(arguments[1]))
    elif origin is tuple:
        yield from ((f".N{suffix}", model) for suffix, model in settings_in(arguments[0]))
    else:
        yield from (found for argument in arguments for found in settings_in(argument))


def table(section: Section) -> str:
    """Return the heading, the description and the table of one settings class."""
    fields = {name: field for name, field in section.model.model_fields.items() if name != "kind"}
    rows = [row(name, field) for name, field in fields.items()]
    return "\n\n".join((f"### {section.title}", section.about, "\n".join((HEAD, *rows))))


def row(name: str, field: FieldInfo) -> str:
    """Return one line of a table."""
    cells = (f"`{name}`", value_text(field), default_text(field), meaning(field))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def meaning(field: FieldInfo) -> str:
    """Return what a key is for: its own words, or those of the settings class it holds."""
    inner = [model for _, model in settings_in(field.annotation)]
    words = field.description or (Section("", inner[0]).about if inner else "")
    return re.sub(r"\bNone\b", "`null`", " ".join(words.split()))  # a recipe's word for it


def value_text(field: FieldInfo) -> str:
    """Return what may be written: a noun, the bounds, or the names to choose from."""
    inner = list(settings_in(field.annotation))
    if not inner:
        return noun(field.annotation, tuple(field.metadata))
    kinds = ", ".join(f"`{kind}`" for _, model in inner if (kind := kind_of(model)))
    form = {"": "keys below", ".N": "list; keys of each below"}.get(inner[0][0], "by name; keys of each below")
    return f"{form}; `kind`: {kinds}" if kinds else form


def noun(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """Return the words for a type, with the bounds that its annotations set."""
    unit = next((UNITS.get(item.func) for item in metadata if isinstance(item, BeforeValidator)), None)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in SCHEDULE_PARTS or annotation == Schedule:
        return "schedule"
    if origin is typing.Annotated:
        return noun(arguments[0], (*arguments[1:], *metadata))
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin is tuple:
        parts = [part for part in arguments if part is not Ellipsis]
        return f"list; each: {noun(parts[0])}" if len(parts) < len(arguments) else f"{len(parts)} {noun(parts[0])}s"
    if origin is not None:
        words = ("`null`" if part is type(None) else noun(part, metadata) for part in arguments)
        return " or ".join(dict.fromkeys(words))
    if isinstance(annotation, type) and is_dataclass(annotation):
        return annotation.__name__.lower()
    return (unit or NOUNS[annotation]) + bounds(metadata)


def bounds(metadata: tuple[Any, ...]) -> str:
    """Return the limits among a field's annotations, such as " ≥ 0, ≤ 1"."""
    flat = [part for item in metadata for part in (getattr(item, "metadata", None) or [item])]
    found = []
    for kind, name, sign, binding in BOUNDS:
        if limits := [getattr(item, name) for item in flat if isinstance(item, kind)]:
            found.append(f"{sign} {binding(limits)}")
    return f" {', '.join(found)}" if found else ""


def default_text(field: FieldInfo) -> str:
    """Return what holds where the key is left out."""
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, Constant | Cosine):
        return f"`{getattr(value, next(iter(type(value).model_fields)))}`"
    if isinstance(value, BaseModel):
        kind = kind_of(type(value))
        return f"`{kind}`" if kind else "each key's own"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if value is None or isinstance(value, bool):
        return f"`{'null' if value is None else str(value).lower()}`"
    short = format_count(value) if isinstance(value, int) else str(value)
    return f"`{short if not isinstance(value, int) or parse_count(short) == value else value}`"


def generated() -> str:
    """Return everything between the marks."""
    free = ", ".join(f"`{key}`" for key in FREE_KEYS)
    resume = f"A resume may change these keys (and all below them); any other change needs `allow_change`: {free}."
    return "\n\n".join([*map(table, sections()), "### Keys that a resume may change", resume])


def document_text(current: str) -> str:
    """Return the document with everything between the marks written anew.

    Raises:
        ValueError: the document does not hold each mark once.
    """
    if current.count(FIRST) != 1 or current.count(LAST) != 1:
        raise ValueError(f"{TARGET} does not hold each of these lines once: {FIRST} {LAST}; put them back")
    before, after = current.partition(FIRST)[0], current.partition(LAST)[2]
    return f"{before}{FIRST}\n\n{generated()}\n\n{LAST}{after}"


def main() -> int:
    """Write the tables, or with --check only tell whether the checked-in ones are current."""
    current = TARGET.read_text(encoding="utf-8")
    text = document_text(current)
    if "--check" in sys.argv[1:]:
        verdict = "current" if text == current else "not current; run `python tools/make_recipe_docs.py`"
        print(f"{TARGET} is {verdict}")
        return EXIT_DONE if text == current else 1
    if text != current:
        TARGET.write_text(text, encoding="utf-8")
    print(f"{TARGET} is {'current' if text == current else 'written'}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
