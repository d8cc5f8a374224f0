"""YAML text -> plain values, with the place of every key, so that a message can name file and line.

Departs from PyYAML (YAML 1.1) where that silently changes what was meant: `1e-4` is a number; `on`, `off`, `yes`, `no`
and `1:30` are refused instead of becoming booleans and 90; `007`, `0x1F` and dates stay text; refused are also a key
written twice, a tag that builds objects, and a merge key.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from bigtrain.recipe.errors import RecipeError

KeyPath = tuple[str | int, ...]

NODES_LIMIT = 100_000  # aliases can multiply; a recipe has a few hundred nodes
TAG = "tag:yaml.org,2002:"
WORD, SIXTIES = "!word", "!sixties"
WORD_MEANINGS: dict[tuple[str | int, str], str] = {("precision", "no"): "fp32"}  # Accelerate's word for float32

REFUSED_WORD = "`{}` is a boolean to some YAML readers and text to others; write true or false, or quote it"
REFUSED_SIXTIES = "`{}` is a number in base 60 to some YAML readers; write a duration such as 90s, or quote it"
REFUSED_TAG = "the tag {} is not allowed; write plain values"
REFUSED_MERGE_KEY = "merge keys are not read; write the keys out or use `extends`"

PLAIN = (
    (f"{TAG}null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (f"{TAG}bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (f"{TAG}int", r"[-+]?(?:0|[1-9][0-9_]*)", list("-+0123456789")),
    (f"{TAG}float", r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    (f"{TAG}float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", list("-+.")),
    (WORD, r"on|On|ON|off|Off|OFF|yes|Yes|YES|no|No|NO", list("oOyYnN")),
    (SIXTIES, r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?", list("-+0123456789")),
)
"""Tag, rule and possible first characters of the scalars that are not text."""

LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")  # 007 is a name; 0.5 and 0 are numbers


class RecipeLoader(yaml.SafeLoader):
    """Tells scalars apart by the rules of `PLAIN`; only its composer is used, so nothing is ever constructed."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own form)


class RecipeDumper(yaml.SafeDumper):
    """Quotes every text that `RecipeLoader` or another YAML reader would take for something else."""


for _tag, _rule, _first in PLAIN:
    RecipeLoader.add_implicit_resolver(_tag, re.compile(rf"(?:{_rule})$"), _first)  # type: ignore[no-untyped-call]
    RecipeDumper.add_implicit_resolver(_tag, re.compile(rf"(?:{_rule})$"), _first)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, order=True)
class Place:
    """A file and its line (from 1), or the command line (line 0)."""

    name: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.line}" if self.line else self.name


@dataclass(frozen=True)
class Problem:
    """One broken rule: at which key, where that was written, and the sentence's end."""

    key: KeyPath
    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {dotted(self.key)}: {self.text}" if self.key else f"{self.place}: {self.text}"


@dataclass
class Document:
    """Values as YAML gave them, where each came from, and what the reader already found wrong."""

    tree: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, key: KeyPath) -> Place:
        """Return where a key, or else the nearest mapping above it, was written."""
        while key and key not in self.places:
            key = key[:-1]
        return self.places.get(key, Place("recipe"))


def dotted(key: KeyPath) -> str:
    """Write a key path as on the command line: ("ema", 0, "halflife") -> "ema.0.halflife"."""
    return ".".join(str(part) for part in key)


def read_document(text: str, name: str) -> Document:
    """Return the mapping that a YAML text holds.

    Raises:
        RecipeError: the text is not YAML, or not a mapping of keys.
    """
    node = _composed(text, name, first_line=1)
    if node is None:
        raise RecipeError(f"{name}: the file is empty; write at least `extends: bigtrain:digits-biggan`")
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{name}: a recipe is a mapping, but this holds a {_noun(node)}; write `key: value` lines")
    document = Document(places={(): Place(name, node.start_mark.line + 1)})
    document.tree = _Builder(name, 1, document).value(node, ())
    return document


def read_value(text: str, key: KeyPath, name: str) -> Document:
    """Return a document whose tree holds the one value under "value"; places and problems are those of `key`.

    Raises:
        RecipeError: the text is not YAML.
    """
    node = _composed(text, f"{name}: {dotted(key)}", first_line=0)
    document = Document(places={key: Place(name)})
    document.tree = {"value": None if node is None else _Builder(name, 0, document).value(node, key)}
    return document


def _composed(text: str, name: str, first_line: int) -> yaml.Node | None:
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=RecipeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(name, mark.line + first_line if mark and first_line else 0)
        reason = error.problem or error.context
        raise RecipeError(f"{place}: not YAML: {reason}; check indentation, colons and quotes") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"{name}: not YAML: {' '.join(str(error).split())}; save it as plain UTF-8 text") from error
    return node


class _Builder:
    """Turns composed nodes into plain values and writes places and problems into a document."""

    def __init__(self, name: str, first_line: int, document: Document) -> None:
        self.name, self.first_line, self.document = name, first_line, document
        self.num_nodes = 0
        self.open_nodes: list[yaml.Node] = []

    def place(self, node: yaml.Node) -> Place:
        return Place(self.name, node.start_mark.line + 1 if self.first_line else 0)

    def problem(self, node: yaml.Node, path: KeyPath, text: str) -> None:
        self.document.problems.append(Problem(path, self.place(node), text))

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.num_nodes += 1
        where = f"{self.place(node)}: {dotted(path)}"
        if self.num_nodes > NODES_LIMIT:
            raise RecipeError(f"{where}: aliases expand to over {NODES_LIMIT} values; write them out or use `extends`")
        if any(node is parent for parent in self.open_nodes):
            raise RecipeError(f"{where}: an alias holds itself; write the value out")
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        self.open_nodes.append(node)
        if node.tag not in (f"{TAG}map", f"{TAG}seq"):
            self.problem(node, path, REFUSED_TAG.format(_tag_name(node)))
        value = self.mapping(node, path) if isinstance(node, yaml.MappingNode) else self.sequence(node, path)
        self.open_nodes.pop()
        return value

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.problem(key_node, path, f"a {_noun(key_node)} cannot be a key; write a name")
                continue
            key = key_node.value
            if key in values:
                first = self.document.places[*path, key]
                self.problem(key_node, (*path, key), f"written twice (first in {first}); keep one of them")
                continue
            if key == "<<" and key_node.style is None:
                self.problem(key_node, (*path, key), REFUSED_MERGE_KEY)
                continue
            self.document.places[*path, key] = self.place(key_node)
            values[key] = self.value(value_node, (*path, key))
        return values

    def sequence(self, node: yaml.Node, path: KeyPath) -> list[Any]:
        values = []
        for index, item in enumerate(node.value):
            self.document.places[*path, index] = self.place(item)
            values.append(self.value(item, (*path, index)))
        return values

    def scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        """Return the value; a scalar that is refused is returned as its text, with a problem noted."""
        text, tag = node.value, node.tag
        if tag == WORD and path and (path[-1], text) in WORD_MEANINGS:
            return WORD_MEANINGS[path[-1], text]
        refusals = {WORD: REFUSED_WORD.format(text), SIXTIES: REFUSED_SIXTIES.format(text)}
        reader = READERS.get(tag)
        if reader is None:
            self.problem(node, path, refusals.get(tag, REFUSED_TAG.format(_tag_name(node))))
            return text
        try:
            return reader(text)
        except ValueError:
            self.problem(node, path, f"`{text}` is not what the tag {_tag_name(node)} says; leave the tag away")
            return text


def _number(text: str) -> int | float | str:
    if LEADING_ZERO.fullmatch(text):
        return text
    digits = text.replace("_", "").lower()
    if digits.lstrip("+-").isdigit():
        return int(digits)
    return float(digits.replace(".inf", "inf").replace(".nan", "nan"))


READERS: dict[str, Callable[[str], Any]] = {
    f"{TAG}str": str,
    f"{TAG}null": lambda text: None,
    f"{TAG}bool": lambda text: ("false", "true").index(text.lower()) == 1,
    f"{TAG}int": _number,
    f"{TAG}float": _number,
}


def _noun(node: yaml.Node) -> str:
    return {yaml.ScalarNode: "single value", yaml.SequenceNode: "list"}.get(type(node), "mapping")


def _tag_name(node: yaml.Node) -> str:
    return str(node.tag).replace(TAG, "!!")


def leaves(tree: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield every scalar of a tree with its key path."""
    items: Any = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if items is None:
        yield path, tree
        return
    for key, value in items:
        yield from leaves(value, (*path, key))
