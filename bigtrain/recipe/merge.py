"""How one recipe is laid over another, and how `key.path=value` of the command line is laid over both.

Mappings merge key by key; anything else replaces what was there. A mapping that chooses another variant (another
`kind`, or another shape of schedule) replaces the whole mapping: keys of the old variant mean nothing to the new one.
"""

from collections.abc import Sequence
from typing import Any

from bigtrain.recipe.document import Document, KeyPath, Place, Problem, read_value
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.schedule import SHAPES

COMMAND_LINE = "command line"
VARIANT_KEYS = frozenset({"kind"}) | SHAPES


class _Entries(dict[int, Any]):
    """Laid over a list, replaces entries by their index and keeps the others."""


def merged(base: Document, over: Document) -> Document:
    """Return `over` laid over `base`, with the problems of both; neither is changed."""
    places = dict(base.places)
    tree = _merged_values(base.tree, over.tree, (), places)
    return Document(tree, {**places, **over.places}, base.problems + over.problems)


def with_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """Return the document with every `key.path=value` laid over it, whatever their order; `document` is not changed.

    An override that is not of that form, whose value is not YAML, or that points past the end of a list becomes one of
    the document's problems.
    """
    problems: list[str] = []
    pairs: list[tuple[list[str], str]] = []
    for override in overrides:
        try:
            pairs.append(_read_override(override))
        except RecipeError as error:
            problems += error.problems
    # What chooses a variant goes first, outermost first: it clears keys of the old variant, not those given beside it.
    choices = sorted((pair for pair in pairs if pair[0][-1] in VARIANT_KEYS), key=lambda pair: len(pair[0]))
    pairs = choices + [pair for pair in pairs if pair[0][-1] not in VARIANT_KEYS]
    for parts, text in pairs:
        try:
            document = _assigned(document, parts, text)
        except RecipeError as error:
            problems += error.problems
    place = Place(COMMAND_LINE)
    noted = [Problem((), place, text.removeprefix(f"{COMMAND_LINE}: ")) for text in problems]
    return Document(document.tree, document.places, document.problems + noted)


def _merged_values(base: Any, over: Any, path: KeyPath, places: dict[KeyPath, Place]) -> Any:
    """Merge two values; `places` loses what stood below a value that is replaced."""
    if isinstance(base, list) and isinstance(over, _Entries):
        return [_merged_values(old, over[i], (*path, i), places) if i in over else old for i, old in enumerate(base)]
    if isinstance(base, dict) and isinstance(over, dict) and not _other_variant(base, over):
        result = dict(base)
        for key, value in over.items():
            result[key] = _merged_values(base[key], value, (*path, key), places) if key in base else value
        return result
    for key in [key for key in places if key[: len(path)] == path and len(key) > len(path)]:
        del places[key]
    return over


def _other_variant(base: dict[str, Any], over: dict[str, Any]) -> bool:
    if "kind" in base and "kind" in over:
        return bool(base["kind"] != over["kind"])
    shapes = SHAPES & over.keys()
    return bool(shapes and SHAPES & base.keys() and not shapes & base.keys())


def _read_override(override: str) -> tuple[list[str], str]:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if override.startswith("-"):
        raise RecipeError(f"{COMMAND_LINE}: '{override}': overrides have no dashes; write key.path=value")
    if not equals or not all(parts):
        raise RecipeError(f"{COMMAND_LINE}: '{override}' is not an override; write key.path=value, such as seed=1")
    if not text.strip():
        raise RecipeError(f"{COMMAND_LINE}: {key}: nothing stands after '='; write a value, or null to turn it off")
    if parts == ["extends"]:
        raise RecipeError(f"{COMMAND_LINE}: extends: only a recipe file extends another; write a file that does")
    return parts, text


def _assigned(document: Document, parts: list[str], text: str) -> Document:
    """Return the document with one value laid over what stands at the path that `parts` name."""
    path = _path_in(document.tree, parts)
    value = read_value(text, path, COMMAND_LINE)
    over = value.tree["value"]
    for part in reversed(path):
        over = _Entries({part: over}) if isinstance(part, int) else {part: over}
    parents = [path[:depth] for depth in range(1, len(path))]
    places = {parent: Place(COMMAND_LINE) for parent in parents if parent not in document.places}
    return merged(document, Document(over, {**places, **value.places}, value.problems))


def _path_in(tree: Any, parts: list[str]) -> KeyPath:
    """Return the parts as keys of the tree; inside a list they are indices."""
    path: KeyPath = ()
    for part in parts:
        if isinstance(tree, list):
            if not part.isdigit() or int(part) >= len(tree):
                have = f"entries 0 to {len(tree) - 1}" if tree else "no entries"
                raise RecipeError(f"{COMMAND_LINE}: {'.'.join(parts)}: there is no entry '{part}'; the list has {have}")
            path, tree = (*path, int(part)), tree[int(part)]
        else:
            path, tree = (*path, part), tree.get(part) if isinstance(tree, dict) else None
    return path
