"""A sweep's runs: which there are, what they are called, and that each of them would start."""

import shlex
import subprocess

import pytest

from bigtrain.planning.sweep import load_sweep, suffixes, text_of
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.load import load_recipe
from bigtrain.training.schema import Recipe

SWEEP = """
recipe: bigtrain:digits-mlp
set: {total_images: 1k}
grid:
  optimizers.generator.learning_rate: [1e-4, 2e-4]
  seed: [0, 1]
list:
  - {batch_images: 32}
  - {batch_images: 64, game.augment: {kind: diffaugment}}
"""


def as_trained(name, overrides):
    return load_recipe(name, overrides, Recipe)


@pytest.fixture
def sweep(tmp_path):
    """Write a sweep file and return its path."""

    def write(text=SWEEP):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return path

    return write


def test_every_combination_is_a_run_and_the_grids_last_key_varies_first(sweep):
    runs = load_sweep(sweep(), as_trained)
    found = [
        (run.recipe.batch_images, run.recipe.optimizers["generator"].learning_rate.at(0), run.recipe.seed)
        for run in runs
    ]
    assert found == [(images, rate, seed) for images in (32, 64) for rate in (1e-4, 2e-4) for seed in (0, 1)]
    assert all(run.recipe.total_images == 1000 for run in runs)
    assert [run.recipe.game.augment is None for run in runs] == [True] * 4 + [False] * 4


def test_every_run_has_a_name_and_a_folder_of_its_own(sweep):
    runs = load_sweep(sweep(), as_trained)
    assert runs[1].recipe.name == "digits-mlp-batch_images32-learning_rate0.0001-seed1"
    assert runs[1].recipe.run_dir == f"runs/mine-sweep/{runs[1].recipe.name}"
    assert len({run.recipe.run_dir for run in runs}) == len({run.recipe.name for run in runs}) == 8


def test_a_line_loads_to_the_same_recipe_after_the_job_arrays_reading(sweep, tmp_path):
    words = "[{halflife_images: 5000}, {halflife_images: 10000, rampup: 0.05}]"
    runs = load_sweep(
        sweep(SWEEP.replace("total_images: 1k", f'total_images: 1k, ema: {words}, data.shards: it\'s "x"')), as_trained
    )
    (tmp_path / "lines").write_text("".join(f"{run.line}\n" for run in runs))
    for number, run in enumerate(runs):
        command = f"sed -n {number + 1}p lines | xargs -r printf '%s\\0'"
        read = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        assert read.split("\0")[:-1] == list(run.words) == shlex.split(run.line)
        assert load_recipe(run.words[0], run.words[1:], Recipe) == run.recipe
        assert run.recipe.data.shards == 'it\'s "x"'


def test_a_recipes_path_is_relative_to_the_sweep(sweep, tmp_path):
    (tmp_path / "base.yaml").write_text("extends: bigtrain:digits-mlp\nname: base\n")
    (run,) = load_sweep(sweep("recipe: base.yaml\nname: mine\nrun_dir: out\ngrid: {seed: [3]}\n"), as_trained)
    assert run.words[0] == str(tmp_path / "base.yaml")
    assert (run.recipe.name, run.recipe.run_dir) == ("mine-base", "out/mine-base")


def test_all_problems_of_all_runs_are_told_at_once(sweep):
    text = "recipe: bigtrain:digits-biggan\ngrid: {batch_images: [32, 33], sed: [0]}\n"
    with pytest.raises(RecipeError) as error:
        load_sweep(sweep(text), as_trained)
    first, *others = error.value.problems
    assert first.startswith("run 0 (digits-biggan-batch_images32): command line: sed: not a key of a recipe; did you")
    assert len(others) == 1  # what is no recipe is not asked whether its keys fit each other
    text = "recipe: bigtrain:digits-biggan\ngrid: {batch_images: [33, 35], seed: [-1]}\n"
    with pytest.raises(RecipeError) as error:
        load_sweep(sweep(text), as_trained)
    assert [problem.partition(" (")[0] for problem in error.value.problems] == ["run 0", "run 1"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "grid: is missing, and so is list"),
        ("grid: {seed: []}", "grid.seed: has no values"),
        ("grid: {seed: [1]}\nlist: [{seed: 2}]", "grid.seed: is varied by list as well"),
        ("list: [{name: a}]", "list.name: every run gets its own"),
        ("list: [{seed: 1}, {seed: 2}, {seed: 1}]", "run 2 is run 0 once more"),
        ("grid: {seed: 1}", "grid.seed"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(sweep, text, sentence):
    with pytest.raises(RecipeError) as error:
        load_sweep(sweep(f"recipe: bigtrain:digits-mlp\n{text}\n"), as_trained)
    assert any(sentence in problem for problem in error.value.problems)


def test_names_tell_runs_apart():
    rates = [{"a.generator.rate": 1, "a.critic.rate": x, "seed": 0} for x in (1, 2)]
    assert suffixes(rates) == ["rate1", "rate2"]
    both = [{"a.generator.rate": y, "a.critic.rate": x} for x in (1, 2) for y in (3, 4)]
    assert suffixes(both)[1] == "generator.rate4-critic.rate1"
    assert suffixes([{"x": "a b"}, {"x": "a/b"}]) == ["xa-b-0", "xa-b-1"]
    assert suffixes([{"x": 1}]) == ["base"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-4, "k=0.0001"),
        ("on", "k='on'"),
        (None, "k=null"),
        (True, "k=true"),
        ([1, {"a": "b"}], "k=[1, {a: b}]"),
        ("x" * 200 + " y", f"k={'x' * 200} y"),
    ],
)
def test_values_are_written_as_the_command_line_reads_them(value, text):
    assert text_of("k", value) == text
