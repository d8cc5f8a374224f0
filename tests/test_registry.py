"""Registries look names up, write the error for an unknown one, and build the union that `kind` picks from."""

from typing import Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.registry import Registry, nearest
from bigtrain.recipe.settings import Settings


class OneSettings(Settings):
    kind: Literal["one"] = "one"
    width: int = 1


class TwoSettings(Settings):
    kind: Literal["two"] = "two"
    depth: int = 1


def filled(*classes):
    registry = Registry("thing")
    for settings in classes:
        registry.add(settings.model_fields["kind"].default)(settings)
    return registry


def test_what_was_added_is_found():
    registry = Registry("loss")

    @registry.add("hinge")
    def hinge():
        return 1

    assert registry.get("hinge") is hinge
    assert hinge() == 1
    assert registry.names() == list(registry) == ["hinge"]


def test_an_unknown_name_gets_the_nearest_and_all_known():
    registry = filled(OneSettings, TwoSettings)
    with pytest.raises(RecipeError, match=r"^'tow' is not a known thing; did you mean 'two'\? known: one, two$"):
        registry.get("tow")
    with pytest.raises(RecipeError, match=r"^'xyz' is not a known thing; known: one, two$"):
        registry.get("xyz")


def test_a_name_is_registered_once():
    registry = filled(OneSettings)
    with pytest.raises(AssertionError, match="thing 'one' is registered twice"):
        registry.add("one")(OneSettings)


def test_a_name_must_be_the_kind():
    with pytest.raises(AssertionError, match="registered as 'three' but has kind 'two'"):
        Registry("thing").add("three")(TwoSettings)


def test_the_union_picks_by_kind():
    read = TypeAdapter(filled(OneSettings, TwoSettings).union()).validate_python
    assert read({"kind": "two", "depth": 3}) == TwoSettings(depth=3)
    with pytest.raises(ValidationError):
        read({"kind": "two", "width": 3})
    with pytest.raises(ValidationError):
        read({"kind": "three"})


def test_the_union_of_one_is_that_one():
    assert filled(OneSettings).union() is OneSettings


def test_nearest_is_none_when_nothing_is_alike():
    assert nearest("widht", ["width", "depth"]) == "width"
    assert nearest("qqqq", ["width", "depth"]) is None
    assert nearest("a", []) is None
