"""Every recipe that ships loads, resolves to itself, and names the schema for editors."""

import re

import pytest
import torch

from bigtrain.data.batch import Batch
from bigtrain.engine.processes.launch import start
from bigtrain.games.base import DataFacts
from bigtrain.recipe.load import load_recipe, recipe_text
from bigtrain.recipe.progress import Progress
from bigtrain.recipe.shipped import shipped_folder, shipped_recipes
from bigtrain.training.build import build_engine, build_game
from bigtrain.training.schema import Recipe
from tests.rank_pool import run_ranks

EDITOR_LINE = "# yaml-language-server: $schema=schema.json"
COUNTS = re.compile(r"^# Parameters: generator ([\d,]+), discriminator ([\d,]+)$", re.MULTILINE)
TOY_SIDE = 32
TOY_IMAGES = 8
TOY_NETWORK = {"width": 2, "channel_base": 64, "channel_max": 8, "hidden": [8], "mapping_layers": 2}


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


def test_it_builds_at_full_size_and_its_header_counts_the_parameters(name):
    recipe = load_recipe(f"bigtrain:{name}", [], Recipe)
    facts = DataFacts(recipe.image.spec, (1,) * recipe.image.num_classes or None)
    with torch.device("meta"):
        networks = recipe.game.build(facts).networks
    text = (shipped_folder("recipes") / f"{name}.yaml").read_text(encoding="utf-8")
    (said,) = COUNTS.findall(text)
    found = [sum(p.numel() for p in networks[player].parameters()) for player in ("generator", "discriminator")]
    assert [int(number.replace(",", "")) for number in said] == found


def toy_overrides(recipe):
    """Overrides that make a recipe a matter of seconds, without changing its kind."""
    yield from ("engine=plain", "precision=fp32", "compile=none", f"batch_images={TOY_IMAGES}")
    yield from (f"image.side={TOY_SIDE}", "max_micro_batch_images=null")
    for key in ("batchnorm_images", "minibatch_std_images"):
        if getattr(recipe, key) is not None:
            yield f"{key}={TOY_IMAGES // 2}"
    for player in ("generator", "discriminator"):
        fields = type(getattr(recipe.game, player)).model_fields
        yield from (f"game.{player}.{key}={value}" for key, value in TOY_NETWORK.items() if key in fields)


def two_steps(ranks, name):
    """Play two steps of a shipped recipe on images of noise; return the names of the turns played."""
    recipe = load_recipe(f"bigtrain:{name}", [], Recipe)
    recipe = load_recipe(f"bigtrain:{name}", list(toy_overrides(recipe)), Recipe)
    game = build_game(recipe, DataFacts(recipe.image.spec, (1,) * recipe.image.num_classes or None, TOY_IMAGES))
    engine, progress = build_engine(recipe, game, start(recipe.engine, timeout_minutes=1)), Progress()
    for _ in range(2):
        for number, turn in enumerate(game.turns(progress)):
            real = None if turn.reads == "none" else noise(recipe.image.spec, recipe.batch_images)
            assert engine.play(turn, number, (real,), progress).read().stepped
            progress = progress.after_turn(turn.name)
        progress = progress.after_step(recipe.batch_images)
    return progress.turns


def noise(image, count):
    """A batch of random images."""
    image_NCHW = torch.randint(0, 256, (count, image.channels, image.side, image.side), dtype=torch.uint8)
    return Batch(image_NCHW, torch.arange(count) % max(image.num_classes, 1), torch.arange(count))


def test_it_plays_two_steps_at_toy_width(name):
    (turns,) = run_ranks(1, two_steps, name)
    assert turns["generator/main"] == 2
    assert turns["discriminator/main"] >= 2
