"""From a recipe's name and the command line's overrides to checked settings, or to every problem at once."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from bigtrain.recipe.document import Document, Place, Problem, RecipeDumper, dotted, read_document
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.merge import merged, with_overrides
from bigtrain.recipe.problems import misplaced_booleans, problems_of
from bigtrain.recipe.registry import nearest
from bigtrain.recipe.shipped import PREFIX, SUFFIX, shipped_folder, shipped_recipes

Recipe = TypeVar("Recipe", bound=BaseModel)

LARGEST_BYTES = 1_000_000  # a recipe has a few thousand; a checkpoint given by mistake is refused before it is read


def load_recipe(name: str | Path, overrides: Sequence[str], schema: type[Recipe]) -> Recipe:
    """Return the settings that a recipe and the overrides laid over it describe.

    Args:
        name: path of a YAML file, or `bigtrain:NAME` for a recipe that ships with the package.
        overrides: `key.path=value` each; the value is YAML.
        schema: the settings class; its method `problems()`, if it has one, yields broken relations as
            "key.path: sentence".
    Raises:
        RecipeError: anything is wrong; `problems` lists all of it, each with place, key, value, rule and way out.
    """
    document = read_recipe(name, overrides)
    recipe, problems = _validated(document, schema)
    if recipe is None or problems:
        raise RecipeError([str(problem) for problem in sorted(problems, key=lambda problem: problem.place)])
    return recipe


def read_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Document:
    """Return a recipe's values with those it extends below and the overrides above, not yet checked by a schema.

    Raises:
        RecipeError: a file is missing or not a recipe, or recipes extend each other in a circle.
    """
    return with_overrides(_read_chain(find_recipe(name, Path()), ()), overrides)


def find_recipe(name: str | Path, folder: Path) -> Path:
    """Return the file that a recipe's name means; a path is relative to `folder`.

    Raises:
        RecipeError: there is no such file; the sentence names the nearest one.
    """
    text = str(name)
    if text.startswith(PREFIX):
        wanted = text.removeprefix(PREFIX)
        if wanted in shipped_recipes():
            return shipped_folder("recipes") / f"{wanted}{SUFFIX}"
        raise RecipeError(f"{text} is not a recipe that ships with bigtrain; {_suggestion(wanted, shipped_recipes())}")
    path = folder / Path(text).expanduser()
    for candidate in (path, path.parent / f"{path.name}{SUFFIX}"):
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise RecipeError(f"{path} is a folder, not a recipe; name a YAML file in it")
    if path.stem in shipped_recipes():
        raise RecipeError(f"{path} does not exist; {PREFIX}{path.stem} ships with bigtrain")
    beside = [file.name for file in sorted(path.parent.glob(f"*{SUFFIX}"))]
    if beside:
        raise RecipeError(f"{path} does not exist; in that folder, {_suggestion(path.name, beside)}")
    raise RecipeError(f"{path} does not exist; recipes that ship with bigtrain: {_listed(shipped_recipes())}")


def recipe_text(recipe: BaseModel) -> str:
    """Return settings as a recipe that loads to the same settings."""
    values = recipe.model_dump(mode="json")
    return yaml.dump(values, Dumper=RecipeDumper, sort_keys=False, allow_unicode=True, width=120)


def _read_chain(path: Path, children: tuple[Path, ...]) -> Document:
    """Read a recipe and those it extends, the most general one first."""
    if path.resolve() in children:
        circle = " extends ".join(child.name for child in (*children, path))
        raise RecipeError(f"{path}: recipes extend each other in a circle: {circle}; delete one `extends`")
    document = read_document(_text(path), str(path))
    base = document.tree.pop("extends", None)
    if base is None:
        return document
    place = document.places.pop(("extends",))
    if not isinstance(base, str):
        raise RecipeError(f"{place}: extends: one name or path is needed; write `extends: {PREFIX}NAME`")
    try:
        base_path = find_recipe(base, path.parent)
    except RecipeError as error:
        raise RecipeError([f"{place}: extends: {problem}" for problem in error.problems]) from error
    return merged(_read_chain(base_path, (*children, path.resolve())), document)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise RecipeError(f"{path} has {path.stat().st_size} bytes, too many for a recipe; name a YAML file")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text (byte {error.start}: {error.reason}); name a YAML file") from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}; check its permissions") from error


def _validated(document: Document, schema: type[Recipe]) -> tuple[Recipe | None, list[Problem]]:
    """Check a document; what its reader refused is not judged a second time."""
    recipe, found = None, {problem.key: problem for problem in misplaced_booleans(schema, document)}
    try:
        recipe = schema.model_validate(document.tree)
    except ValidationError as error:
        found |= {problem.key: problem for problem in problems_of(error, schema, document)}
    refused = {problem.key for problem in document.problems}
    problems = document.problems + [problem for key, problem in found.items() if key not in refused]
    if recipe is not None and not problems:
        relations: Iterable[str] = getattr(recipe, "problems", tuple)()
        problems = [_relation(text, document) for text in relations]
    return recipe, problems


def _relation(text: str, document: Document) -> Problem:
    """Place a sentence "key.path: ..." where that key, or the nearest one above it, was written."""
    by_name = {dotted(key): key for key in document.places}
    name = text.partition(": ")[0]
    while name and name not in by_name:
        name = name.rpartition(".")[0]
    place = document.places.get(by_name.get(name, ()), Place("recipe"))
    return Problem((), place, text)


def _suggestion(name: str, known: list[str]) -> str:
    close = nearest(name, known)
    return f"did you mean '{close}'?" if close else f"there are: {_listed(known)}"


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"
