"""From files and overrides to settings; every mistake gets its sentence, and all of them come at once."""

import pytest

from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.load import find_recipe, load_recipe, read_recipe, recipe_text
from bigtrain.recipe.shipped import shipped_folder, shipped_recipes


@pytest.fixture
def load(folder, toy_schema):
    """Load a recipe of the folder, or a YAML text, with overrides."""

    def loaded(name_or_text, *overrides):
        if "\n" in name_or_text:
            (folder / "r.yaml").write_text(name_or_text)
            name_or_text = "r.yaml"
        return load_recipe(name_or_text, overrides, toy_schema)

    return loaded


@pytest.fixture
def problems(load):
    """Load what cannot be loaded and return the problems."""

    def found(*words):
        with pytest.raises(RecipeError) as caught:
            load(*words)
        assert caught.value.exit_status == 2
        assert str(caught.value) == "\n".join(caught.value.problems)
        return list(caught.value.problems)

    return found


def changed(*lines):
    """Write a recipe that extends good.yaml by some lines."""
    return "\n".join(("extends: good.yaml", *lines, ""))


def test_a_good_recipe_loads_with_suffixes_and_defaults(load):
    recipe = load("good.yaml")
    assert recipe.batch_images == 64
    assert recipe.game.generator.width == 8
    assert recipe.game.discriminator.width == 64
    assert recipe.optimizers["generator"].learning_rate.over == 20_000_000
    assert [average.halflife_images for average in recipe.ema] == [5_000, 10_000]


def test_the_suffix_of_a_file_may_be_left_away(load):
    assert load("good") == load("good.yaml")


def test_a_resolved_recipe_loads_to_the_same_settings(load, folder):
    recipe = load("good.yaml", "name='1e-4'", "clip_norm=1e-5", "optimizers.generator.learning_rate=1e-4")
    (folder / "resolved.yaml").write_text(recipe_text(recipe))
    assert load("resolved.yaml") == recipe


def test_all_problems_come_at_once_in_the_order_of_the_file(problems):
    assert problems(
        changed(
            "nam: x",
            "seed: -1",
            "batch_images: many",
            "mirror: yes",
            "precision: fp23",
            "game: {generator: {widht: 3}, discriminator: {kind: bigan}}",
        )
    ) == [
        "r.yaml:2: nam: not a key of a recipe; did you mean 'name'?",
        "r.yaml:3: seed: -1 is below 0; write at least that",
        "r.yaml:4: batch_images: 'many' is not a whole count; "
        "write a number with an optional decimal suffix k, M or G, such as 64k",
        "r.yaml:5: mirror: `yes` is a boolean to some YAML readers and text to others; "
        "write true or false, or quote it",
        "r.yaml:6: precision: 'fp23' is not known; did you mean 'fp32'?; write one of fp32, bf16",
        "r.yaml:7: game.generator.widht: not a key of biggan; did you mean 'width'?",
        "r.yaml:7: game.discriminator.kind: 'bigan' is not known; write biggan",
    ]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("seed: 2.5", "seed: 2.5 is not a whole number; write one such as 64"),
        ("seed: true", "seed: true is not a number or text; write one"),
        ("seed:", "seed: it has no value; write one, or delete the key to get its default"),
        ("name: 7", "name: 7 is not text; put it in quotes"),
        ("batch_images: 0", "batch_images: 0 is below 1; write at least that"),
        ("batch_images: 1.5k5", "batch_images: '1.5k5' is not a whole count; write a number"),
        ("holdout: 120%", "holdout: '120%' is above 1; write at most that"),
        ("holdout: little", "holdout: 'little' is not a share; write a percentage such as 5%"),
        ("every: 3 weeks", "every: '3 weeks' is not a duration; write a number with a unit s, min, h or d"),
        ("mirror: perhaps", "mirror: 'perhaps' is neither true nor false; write one of them"),
        ("clip_norm: wide", "clip_norm: 'wide' is not a number; write one such as 2e-4"),
        ("clip_norm: .nan", "clip_norm: NaN is not finite; write an ordinary number"),
        ("game: 3", "game: 3 is not a mapping; write its keys below it, one a line"),
        ("game: {generator: {kind: styl}}", "game.generator.kind: 'styl' is not known; did you mean 'style'?"),
        ("game: {generator: {attention_sides: [1, a]}}", "game.generator.attention_sides.1: 'a' is not a whole number"),
        ("optimizers: {g: {betas: [1]}}", "optimizers.g.betas.1: an entry is missing; add it"),
        ("optimizers: {g: {betas: 0.9}}", "optimizers.g.betas: 0.9 is not a list; write [a, b]"),
        ("optimizers: {g: {learning_rate: fast}}", "optimizers.g.learning_rate: 'fast' is not a number"),
        ("optimizers: {g: {learning_rate: [1]}}", "optimizers.g.learning_rate: [1] is not a schedule; write a number"),
        ("optimizers: {g: {learning_rate: {cosine: [1, 2]}}}", "optimizers.g.learning_rate.over: the key is required"),
        ("optimizers: {g: {learning_rate: {cosin: [1, 2]}}}", "not a key of optimizers.g.learning_rate"),
        ("ema: [{}]", "ema.0.halflife_images: the key is required; add it"),
        ("ema: 5", "ema: 5 is not a list; write [a, b]"),
        ("width: 3", "width: not a key of a recipe; did you mean 'game.generator.width'?"),
        ("game.generator.width: 3", "nest it, one key a line; dots are for the command line"),
        ("zzz: 3", "zzz: not a key of a recipe; known: name, seed, batch_images"),
    ],
)
def test_a_mistake_gets_place_key_value_rule_and_way_out(problems, line, sentence):
    found = problems(changed(line))
    assert any(problem.startswith("r.yaml:2: ") and sentence in problem for problem in found), found
    assert len(found) == 1 or "cosin:" in line


def test_a_missing_key_says_what_it_is_for(problems):
    assert problems("batch_images: 64\ngame: {generator: {kind: biggan}}\n") == [
        "r.yaml:1: name: the key is required; add it (Name of the run)"
    ]


def test_a_missing_kind_lists_the_kinds(problems):
    assert problems("name: a\nbatch_images: 64\ngame:\n  generator: {width: 3}\n") == [
        "r.yaml:4: game.generator.kind: the key is missing; choose one of biggan, style"
    ]


def test_a_wrong_kind_is_not_followed_by_what_its_keys_would_be(problems):
    [problem] = problems(changed("game: {discriminator: {kind: style, channels: 3}}"))
    assert problem == "r.yaml:2: game.discriminator.kind: 'style' is not known; write biggan"
    assert len(problems(changed("game: {discriminator: {kind: style, width: 0}}"))) == 2


def test_an_unknown_key_is_looked_for_in_the_chosen_variant_only(problems):
    [problem] = problems(changed("game: {generator: {kind: style, widht: 3}}"))
    assert problem.startswith("r.yaml:2: game.generator.widht: not a key of style; ")
    assert "'width'" not in problem
    assert "'game.generator.width'" not in problem


def test_long_values_are_cut(problems):
    [problem] = problems(changed("seed: " + "x" * 500))
    assert len(problem) < 160


def test_broken_relations_point_to_the_line_of_their_key(problems):
    assert problems("good.yaml", "batch_images=66", "ema.1.halflife_images=2M") == [
        "command line: batch_images: 66 is not a multiple of 4; write 64",
        "command line: ema.1.halflife_images: 2000000 is longer than the run; write less",
    ]
    assert problems(changed("batch_images: 66"))[0].startswith("r.yaml:2: batch_images: 66 is not")


def test_an_inherited_mistake_names_the_file_that_holds_it(problems, folder):
    (folder / "base.yaml").write_text("name: a\nbatch_images: x\ngame: {generator: {kind: biggan}}\n")
    [problem] = problems("extends: base\nseed: 3\n")
    assert problem.startswith("base.yaml:2: batch_images: 'x' is not")


# ------------------------------------------------------------------------------------------------- extends


def test_extends_merges_mappings_and_replaces_the_rest(load):
    recipe = load(changed("game: {generator: {attention_sides: [16, 8]}}", "ema: [{halflife_images: 1}]"))
    assert recipe.game.generator.width == 8
    assert recipe.game.generator.attention_sides == (16, 8)
    assert len(recipe.ema) == 1


def test_another_kind_replaces_the_settings_of_the_old_kind(load):
    recipe = load(changed("game: {generator: {kind: style}}"))
    assert recipe.game.generator.channels == 3


def test_another_shape_replaces_a_schedule(load):
    recipe = load(changed("optimizers: {generator: {learning_rate: {constant: 3e-4}}}"))
    assert recipe.optimizers["generator"].learning_rate.at(0) == 3e-4


def test_part_of_a_schedule_can_be_changed(load):
    recipe = load(changed("optimizers: {generator: {learning_rate: {over: 1k}}}"))
    assert recipe.optimizers["generator"].learning_rate.cosine == (2e-4, 5e-5)
    assert recipe.optimizers["generator"].learning_rate.over == 1_000


def test_extends_is_relative_to_the_file(load, folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "child.yaml").write_text("extends: ../good.yaml\nseed: 5\n")
    (folder / "grandchild.yaml").write_text("extends: deep/child\nname: c\n")
    recipe = load("grandchild.yaml")
    assert (recipe.name, recipe.seed, recipe.batch_images) == ("c", 5, 64)


def test_recipes_that_extend_each_other_are_refused(problems, folder):
    (folder / "a.yaml").write_text("extends: b.yaml\n")
    (folder / "b.yaml").write_text("extends: a.yaml\n")
    assert problems("a.yaml") == [
        "a.yaml: recipes extend each other in a circle: a.yaml extends b.yaml extends a.yaml; delete one `extends`"
    ]


def test_extending_what_is_not_there_names_the_line_and_the_nearest(problems):
    assert problems("name: a\nextends: god.yaml\n") == [
        "r.yaml:2: extends: god.yaml does not exist; in that folder, did you mean 'good.yaml'?"
    ]
    assert problems("extends: [good.yaml]\n") == [
        "r.yaml:1: extends: one name or path is needed; write `extends: bigtrain:NAME`"
    ]


# ------------------------------------------------------------------------------------------------- overrides


def test_overrides_are_yaml_and_reach_into_lists(load):
    recipe = load(
        "good.yaml",
        "seed=3",
        "batch_images=1k",
        "precision=no",
        "clip_norm=1e-3",
        "game.generator.attention_sides=[32, 16]",
        "ema.1.halflife_images=7",
        "optimizers.discriminator={learning_rate: 1e-3}",
    )
    assert (recipe.seed, recipe.batch_images, recipe.precision, recipe.clip_norm) == (3, 1000, "fp32", 1e-3)
    assert recipe.game.generator.attention_sides == (32, 16)
    assert [average.halflife_images for average in recipe.ema] == [5_000, 7]
    assert recipe.optimizers["discriminator"].learning_rate.at(9) == 1e-3
    assert load("good.yaml", "clip_norm=1", "clip_norm=null").clip_norm is None


def test_the_last_of_two_overrides_wins(load):
    assert load("good.yaml", "seed=1", "seed=2").seed == 2


def test_a_kind_may_be_given_after_its_companions(load):
    recipe = load("good.yaml", "game.generator.channels=4", "game.generator.kind=style")
    assert recipe.game.generator.channels == 4
    key = "optimizers.generator.learning_rate"
    assert load("good.yaml", f"{key}.constant=1e-3").optimizers["generator"].learning_rate.at(0) == 1e-3
    constant = changed("optimizers: {generator: {learning_rate: 1e-3}}")
    both = load(constant, f"{key}.over=1k", f"{key}.cosine=[1, 0]").optimizers["generator"]
    assert (both.learning_rate.over, both.learning_rate.cosine) == (1_000, (1.0, 0.0))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("--seed=3", "'--seed=3': overrides have no dashes; write key.path=value"),
        ("seed", "'seed' is not an override; write key.path=value, such as seed=1"),
        ("=3", "'=3' is not an override; write key.path=value, such as seed=1"),
        ("game..width=3", "'game..width=3' is not an override; write key.path=value, such as seed=1"),
        ("seed=", "seed: nothing stands after '='; write a value, or null to turn it off"),
        ("seed=[1", "seed: not YAML: "),
        ("mirror=no", "mirror: `no` is a boolean to some YAML readers"),
        ("ema.2.halflife_images=3", "ema.2.halflife_images: there is no entry '2'; the list has entries 0 to 1"),
        ("ema.first=3", "ema.first: there is no entry 'first'; the list has entries 0 to 1"),
        ("game.generator.widht=3", "game.generator.widht: not a key of biggan; did you mean 'width'?"),
        ("generator.width=3", "generator: not a key of a recipe; did you mean 'game.generator'?"),
        ("extends=good.yaml", "extends: only a recipe file extends another; write a file that does"),
        ("seed=!!python/name:os.system", "seed: the tag !!python/name:os.system is not allowed"),
    ],
)
def test_a_wrong_override_is_told_with_the_command_line_as_its_place(problems, override, sentence):
    [problem] = problems("good.yaml", override)
    assert problem.startswith(f"command line: {sentence}")


def test_an_override_beside_a_mistake_leaves_the_mistake_where_it_was(problems):
    text = "name: a\nbatch_images: 64\ngame:\n  generator: {width: 3}\n"
    [problem] = problems(text, "game.generator.attention_sides=[3]")
    assert problem.startswith("r.yaml:4: game.generator.kind: the key is missing")


def test_wrong_overrides_and_wrong_keys_come_together(problems):
    found = problems(changed("seed: -1"), "--x", "batch_images=0")
    assert len(found) == 3


# ------------------------------------------------------------------------------------------------- files


def test_a_recipe_that_is_not_there_names_the_nearest(problems, folder):
    assert problems("god.yaml") == ["god.yaml does not exist; in that folder, did you mean 'good.yaml'?"]
    [problem] = problems("nowhere/x.yaml")
    assert problem.startswith("nowhere/x.yaml does not exist; recipes that ship with bigtrain: ")
    assert problems("") == problems(".") == [". is a folder, not a recipe; name a YAML file in it"]


def test_a_file_that_is_no_text_is_refused(problems, folder):
    (folder / "weights.yaml").write_bytes(b"\xff\xfe\x00\x01")
    assert problems("weights.yaml")[0].startswith("weights.yaml is not UTF-8 text (byte 0: ")
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(10_000_000)
    assert problems("model.safetensors") == [
        "model.safetensors has 10000000 bytes, too many for a recipe; name a YAML file"
    ]


def test_shipped_recipes_are_found_by_name_from_anywhere(folder):
    assert "digits-biggan" in shipped_recipes()
    path = find_recipe("bigtrain:digits-biggan", folder)
    assert path == shipped_folder("recipes") / "digits-biggan.yaml"
    assert read_recipe("bigtrain:digits-biggan").tree["name"] == "digits-biggan"


def test_a_shipped_recipe_can_be_extended(folder):
    (folder / "mine.yaml").write_text("extends: bigtrain:digits-biggan\nname: mine\n")
    document = read_recipe("mine.yaml", ["seed=9"])
    assert (document.tree["name"], document.tree["seed"]) == ("mine", 9)
    assert "batch_images" in document.tree
    assert "extends" not in document.tree


def test_a_shipped_recipe_that_is_not_there_names_the_nearest(problems):
    assert problems("bigtrain:digit-biggan") == [
        "bigtrain:digit-biggan is not a recipe that ships with bigtrain; did you mean 'digits-biggan'?"
    ]
    assert "bigtrain:digits-biggan ships with bigtrain" in problems("elsewhere/digits-biggan.yaml")[0]
