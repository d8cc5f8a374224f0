"""Turns what pydantic found wrong into sentences: place, key, value, rule, way out."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from bigtrain.recipe.anatomy import annotation_at, annotation_below, chosen, key_elsewhere, kind_of, members, models
from bigtrain.recipe.document import Document, KeyPath, Problem, dotted, leaves
from bigtrain.recipe.registry import nearest

SHOWN_LENGTH = 60  # characters of a value in a sentence

Context = Mapping[str, Any]


def shown(value: Any) -> str:
    """Write a value as a recipe would, cut to one readable length."""
    text = f"'{value}'" if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 3] + "..."


def problems_of(error: ValidationError, schema: type[BaseModel], document: Document) -> list[Problem]:
    """Return one problem for each key that pydantic refused, in words of the recipe."""
    refusals: list[tuple[KeyPath, ErrorDetails]] = []
    for details in error.errors(include_url=False):
        path = _path_of(details["loc"], schema, document.tree)
        if path is not None:
            tagged = details["type"] in ("union_tag_invalid", "union_tag_not_found")
            refusals.append(((*path, details["ctx"]["discriminator"].strip("'")) if tagged else path, details))
    # Which keys a mapping needs and knows is not known while its kind is wrong.
    unclear = {path[:-1] for path, _ in refusals if path[-1:] == ("kind",)}
    texts: dict[KeyPath, list[str]] = {}
    for path, details in refusals:
        if path[:-1] in unclear and path[-1] != "kind" and details["type"] in ("missing", "extra_forbidden"):
            continue
        text = _sentence(details, path, schema, document.tree)
        if text not in texts.setdefault(path, []):
            texts[path].append(text)
    return [Problem(path, document.place(path), "; or: ".join(parts)) for path, parts in texts.items()]


def misplaced_booleans(schema: type[BaseModel], document: Document) -> Iterator[Problem]:
    """Yield a problem for each true or false where a number or text belongs (pydantic would take true as 1)."""
    for path, value in leaves(document.tree):
        allowed = members(annotation_at(schema, document.tree, path)) if isinstance(value, bool) else (bool,)
        if not {bool, Any, None} & set(allowed) and all(isinstance(part, type) for part in allowed):
            yield Problem(path, document.place(path), f"{shown(value)} is not a number or text; write one")


def _path_of(location: tuple[str | int, ...], schema: type[BaseModel], tree: Any) -> KeyPath | None:
    """Return pydantic's location without its union labels; None for an error of a union member that is not meant."""
    annotation: Any = schema
    path: KeyPath = ()
    value = tree
    for key in location:
        model = chosen(annotation, value)
        fields = model.model_fields if model is not None else {}
        if isinstance(value, dict) and (key in value or key in fields):
            annotation, value = annotation_below(annotation, value, key), value.get(key)
            path = (*path, key)
        elif isinstance(value, list) and isinstance(key, int):
            annotation, value = annotation_below(annotation, value, key), value[key] if key < len(value) else None
            path = (*path, key)
        elif model is not None and key in {other.__name__ for other in models(annotation)} - {model.__name__}:
            return None
    return path


def _sentence(details: ErrorDetails, path: KeyPath, schema: type[BaseModel], tree: Any) -> str:
    error, value, context = details["type"], details["input"], details.get("ctx", {})
    if error in ("missing", "union_tag_not_found"):
        return _missing(path, schema, tree)
    if error == "extra_forbidden":
        return _unknown_key(path, schema, tree)
    if error == "union_tag_invalid":
        return _not_one_of(context["tag"], context["expected_tags"])
    if error in ("literal_error", "enum"):
        return _not_one_of(value, context["expected"])
    if error in ("value_error", "assertion_error"):
        message = str(context["error"])
        return f"{shown(value)} is {message}" if message.startswith("not ") else message
    if value is None:
        return "it has no value; write one, or delete the key to get its default"
    rule = RULES.get(error)
    if rule is None:
        return f"{shown(value)} is refused: {details['msg'][:1].lower()}{details['msg'][1:]}"
    return f"{shown(value)} {rule(context)}"


def _missing(path: KeyPath, schema: type[BaseModel], tree: Any) -> str:
    if isinstance(path[-1], int):
        return "an entry is missing; add it"
    above = annotation_at(schema, tree, path[:-1])
    kinds = [kind for kind in map(kind_of, models(above)) if kind]
    if path[-1] == "kind" and kinds:
        return f"the key is missing; choose one of {', '.join(kinds)}"
    field = _field(above, tree, path)
    meaning = f" ({field.description.rstrip('.')})" if field and field.description else ""
    return f"the key is required; add it{meaning}"


def _field(above: Any, tree: Any, path: KeyPath) -> FieldInfo | None:
    for key in path[:-1]:
        tree = tree[key]
    model = chosen(above, tree)
    return model.model_fields.get(str(path[-1])) if model else None


def _unknown_key(path: KeyPath, schema: type[BaseModel], tree: Any) -> str:
    name, value = str(path[-1]), tree
    for key in path[:-1]:
        value = value[key]
    model = chosen(annotation_at(schema, tree, path[:-1]), value)
    known = list(model.model_fields) if model else []
    owner = (kind_of(model) if model else None) or dotted(path[:-1]) or "a recipe"
    close, elsewhere = nearest(name, known), key_elsewhere(schema, path)
    if close:
        way_out = f"did you mean '{close}'?"
    elif elsewhere:
        way_out = f"did you mean '{elsewhere}'?"
    elif "." in name:
        way_out = "nest it, one key a line; dots are for the command line"
    else:
        way_out = f"known: {', '.join(known)}"
    return f"not a key of {owner}; {way_out}"


def _not_one_of(value: Any, expected: str) -> str:
    names = re.findall(r"'([^']*)'", expected) or re.split(r", | or ", expected)
    close = nearest(str(value), names)
    hint = f"; did you mean '{close}'?" if close and len(names) > 1 else ""
    return f"{shown(value)} is not known{hint}; write {names[0] if len(names) == 1 else 'one of ' + ', '.join(names)}"


def _needs_mapping(context: Context) -> str:
    return "is not a mapping; write its keys below it, one a line"


RULES: dict[str, Callable[[Context], str]] = {
    "int_type": lambda context: "is not a whole number; write one such as 64",
    "int_parsing": lambda context: "is not a whole number; write one such as 64",
    "int_from_float": lambda context: "is not a whole number; write one such as 64",
    "float_type": lambda context: "is not a number; write one such as 2e-4",
    "float_parsing": lambda context: "is not a number; write one such as 2e-4",
    "finite_number": lambda context: "is not finite; write an ordinary number",
    "bool_type": lambda context: "is neither true nor false; write one of them",
    "bool_parsing": lambda context: "is neither true nor false; write one of them",
    "string_type": lambda context: "is not text; put it in quotes",
    "path_type": lambda context: "is not a path; write text",
    "list_type": lambda context: "is not a list; write [a, b]",
    "tuple_type": lambda context: "is not a list; write [a, b]",
    "model_type": _needs_mapping,
    "model_attributes_type": _needs_mapping,
    "dict_type": _needs_mapping,
    "too_short": lambda context: f"has {context['actual_length']} entries; write at least {context['min_length']}",
    "too_long": lambda context: f"has {context['actual_length']} entries; write at most {context['max_length']}",
    "string_too_short": lambda context: f"is too short; write at least {context['min_length']} characters",
    "string_pattern_mismatch": lambda context: f"does not fit the pattern {context['pattern']}",
    "greater_than": lambda context: f"is not above {context['gt']}; write more than that",
    "greater_than_equal": lambda context: f"is below {context['ge']}; write at least that",
    "less_than": lambda context: f"is not below {context['lt']}; write less than that",
    "less_than_equal": lambda context: f"is above {context['le']}; write at most that",
    "multiple_of": lambda context: f"is not a multiple of {context['multiple_of']}; write one that is",
}
"""Error type of pydantic -> rule and way out."""
