"""Reads the shape of a settings class: which model, which keys and which types stand at a place of a recipe."""

import difflib
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from bigtrain.recipe.document import KeyPath, dotted

VERY_LIKE = 0.75  # likeness, by difflib, of a key of another mapping that is worth a suggestion


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the types that a field may hold, looking through Annotated and unions."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return tuple(member for part in get_args(annotation) for member in members(part))
    return (annotation,)


def models(annotation: Any) -> list[type[BaseModel]]:
    """Return the settings classes among the types that a field may hold."""
    return [part for part in members(annotation) if isinstance(part, type) and issubclass(part, BaseModel)]


def kind_of(model: type[BaseModel]) -> str | None:
    """Return the `kind` that chooses this settings class, or None when it has none."""
    field = model.model_fields.get("kind")
    return str(get_args(field.annotation)[0]) if field and get_origin(field.annotation) is Literal else None


def chosen(annotation: Any, value: Any) -> type[BaseModel] | None:
    """Return the settings class that a value means: by its `kind`, else the one that shares most keys with it."""
    candidates = models(annotation)
    keys = set(value) if isinstance(value, dict) else set()
    by_kind = [model for model in candidates if keys and kind_of(model) == value.get("kind") is not None]
    if by_kind:
        return by_kind[0]
    return max(candidates, key=lambda model: len(keys & model.model_fields.keys()), default=None)


def annotation_below(annotation: Any, value: Any, key: str | int) -> Any:
    """Return the type that stands under `key` of a value of this type, or None when nothing is known of it."""
    model = chosen(annotation, value)
    if model is not None and isinstance(value, dict):
        field = model.model_fields.get(str(key))
        return field.annotation if field else None
    for part in members(annotation):
        arguments = [argument for argument in get_args(part) if argument is not Ellipsis]
        if isinstance(value, dict) and len(arguments) == 2:
            return arguments[1]
        if isinstance(value, list) and arguments and isinstance(key, int):
            return arguments[min(key, len(arguments) - 1)]
    return None


def annotation_at(schema: type[BaseModel], tree: Any, path: KeyPath) -> Any:
    """Return the type that stands at a key path of a tree, or None when the schema knows no such key."""
    annotation: Any = schema
    for key in path:
        annotation = annotation_below(annotation, tree, key)
        inside = (isinstance(tree, dict) and key in tree) or isinstance(tree, list)
        tree = tree[key] if inside else None
        if annotation is None:
            return None
    return annotation


def key_paths(annotation: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield every key path that the schema knows, whichever variant is chosen, outermost first."""
    deeper = []
    for model in models(annotation):
        for name, field in model.model_fields.items():
            yield (*path, name)
            deeper.append((field.annotation, (*path, name)))
    for below, below_path in deeper:
        yield from key_paths(below, below_path)


def key_elsewhere(schema: type[BaseModel], path: KeyPath) -> str | None:
    """Return the outermost key path of another mapping that ends like `path`, or almost, with dots; or None."""
    paths: dict[str, str] = {}
    for known in key_paths(schema):
        if known[:-1] != path[:-1]:
            paths.setdefault(str(known[-1]), dotted(known))
    close = difflib.get_close_matches(str(path[-1]), paths, n=1, cutoff=VERY_LIKE)
    return paths[close[0]] if close else None
