"""Every recipe that ships loads, resolves to itself, and names the schema for editors."""

import pytest

from bigtrain.recipe.load import load_recipe, recipe_text
from bigtrain.recipe.shipped import shipped_folder, shipped_recipes
from bigtrain.training.schema import Recipe

EDITOR_LINE = "# yaml-language-server: $schema=schema.json"


@pytest.fixture(params=shipped_recipes())
def name(request):
    """The name of each shipped recipe."""
    return request.param


def test_it_loads(name):
    assert load_recipe(f"bigtrain:{name}", [], Recipe).name == name


def test_it_resolves_to_itself(name, tmp_path):
    recipe = load_recipe(f"bigtrain:{name}", [], Recipe)
    (tmp_path / "resolved.yaml").write_text(recipe_text(recipe))
    assert load_recipe(tmp_path / "resolved.yaml", [], Recipe) == recipe


def test_it_names_the_schema_for_editors(name):
    text = (shipped_folder("recipes") / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.splitlines()[0] == EDITOR_LINE
