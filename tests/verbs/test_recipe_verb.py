"""`bigtrain recipe` prints a recipe that can be run again, and what follows from it."""

import pytest

from bigtrain import cli
from bigtrain.games.base import DataFacts
from bigtrain.recipe.load import load_recipe
from bigtrain.training.schema import Recipe

DIGITS = "bigtrain:digits-biggan"


def test_what_it_prints_is_the_same_recipe(tmp_path, capsys):
    assert cli.main(["recipe", DIGITS, "seed=7", "total_images=1k"]) == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert load_recipe(tmp_path / "printed.yaml", [], Recipe) == load_recipe(
        DIGITS, ["seed=7", "total_images=1k"], Recipe
    )


def test_derived_figures_follow_from_the_recipe(capsys):
    words = ["total_images=1000", "batch_images=64", "batchnorm_images=64", "max_micro_batch_images=16"]
    assert cli.main(["recipe", DIGITS, *words, "--processes", "4"]) == 0
    printed = capsys.readouterr().out
    assert "\n# derived for 4 processes:\n" in printed
    assert "\n#   micro-batch: 16 images, accumulation 1\n" in printed
    assert "\n#   steps: 16 of 64 images\n" in printed  # 1,000 / 64 = 15.6


def test_parameters_are_counted_without_building_the_weights(capsys):
    recipe = load_recipe(DIGITS, [], Recipe)
    networks = recipe.game.build(DataFacts(recipe.image.spec, None)).networks
    assert cli.main(["recipe", DIGITS]) == 0
    printed = capsys.readouterr().out
    for name, network in networks.items():
        count = sum(weight.numel() for weight in network.parameters())
        assert f"\n#   parameters of {name}: {count:,}\n" in printed


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([DIGITS, "--processes", "3"], "batch_images: 32 cannot be dealt to 3 process"),
        ([DIGITS, "--processes", "0"], "--processes 0: a run has at least one process; write 1 or more"),
        (
            [DIGITS, "batchnorm_images=null"],
            "command line: batchnorm_images: is missing, but a network of noise_to_image has BatchNorm",
        ),
        ([DIGITS, "game.generator.widht=3"], "command line: game.generator.widht: not a key of biggan"),
        (["no-such.yaml"], "no-such.yaml does not exist"),
    ],
)
def test_a_recipe_that_cannot_run_prints_a_sentence_and_nothing_else(capsys, words, sentence):
    assert cli.main(["recipe", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(sentence)
    assert captured.err.count("\n") == 1


def test_several_mistakes_are_all_told(capsys):
    assert cli.main(["recipe", DIGITS, "sed=1", "batch_images=0", "game.kind=nois"]) == 2
    assert capsys.readouterr().err.count("\n") == 3
