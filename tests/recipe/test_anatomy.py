"""What a settings class knows about its own keys."""

from bigtrain.recipe.anatomy import annotation_at, chosen, key_elsewhere, key_paths, kind_of, members


def test_members_look_through_unions_and_annotations():
    from typing import Annotated

    assert members(Annotated[int | None, "x"] | Annotated[str, "y"]) == (int, type(None), str)


def test_the_variant_is_chosen_by_kind_then_by_shared_keys(toy_schema):
    field = toy_schema.model_fields["game"].annotation.model_fields["generator"].annotation
    assert kind_of(chosen(field, {"kind": "style"})) == "style"
    assert kind_of(chosen(field, {"channels": 3})) == "style"
    assert kind_of(chosen(field, {"width": 3})) == "biggan"


def test_types_are_found_at_any_depth(toy_schema):
    tree = {"optimizers": {"generator": {"betas": [0, 1]}}, "ema": [{"halflife_images": 3}]}
    assert annotation_at(toy_schema, tree, ("optimizers", "generator", "betas", 1)) is float
    assert annotation_at(toy_schema, tree, ("ema", 0, "halflife_images")) is int
    assert annotation_at(toy_schema, tree, ("ema", 0, "nothing")) is None


def test_keys_elsewhere_are_the_outermost_of_that_name(toy_schema):
    assert ("game", "generator", "channels") in set(key_paths(toy_schema))
    assert key_elsewhere(toy_schema, ("width",)) == "game.generator.width"
    assert key_elsewhere(toy_schema, ("game", "widht")) == "game.generator.width"
    assert key_elsewhere(toy_schema, ("game", "generator", "seed")) == "seed"
    assert key_elsewhere(toy_schema, ("nothing",)) is None


def test_a_key_of_another_variant_is_not_elsewhere(toy_schema):
    assert key_elsewhere(toy_schema, ("game", "generator", "channels")) is None
