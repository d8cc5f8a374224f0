"""What a turn is said to cost, against real turns on this CPU and against published counts."""

import pytest
import torch
from torch import nn

from benchmarks.reference_forms import unfuse_resampling
from bigtrain.data.batch import Batch
from bigtrain.engine.players import Player
from bigtrain.engine.processes.launch import start
from bigtrain.games.base import DataFacts
from bigtrain.planning.ledger import Ledger
from bigtrain.planning.measure import frequencies, measure, owned, play, prepare, weigh
from bigtrain.recipe.load import load_recipe
from bigtrain.recipe.progress import Progress
from bigtrain.training.build import build_engine, build_game
from bigtrain.training.schema import Recipe
from tests.rank_pool import run_ranks

TINY = ("game.generator.width=8", "game.discriminator.width=8")
# The least part of the memory a CPU really takes that tensors account for. The rest are copies that oneDNN's
# convolutions make inside a kernel (of an input in another memory format, or of an image-sized kernel in R1).
MEASURED = [
    ("digits-mlp", 64, (), 1.0),
    ("digits-dcgan", 32, (), 0.9),
    ("digits-biggan", 16, ("batchnorm_images=16", *TINY), 0.65),
    ("digits-stylegan2", 16, ("image.side=64", "game.penalties.path_length.every=4"), 0.8),
    ("digits-stylegan2", 16, ("precision=bf16",), 0.9),
]


def facts_of(recipe):
    return DataFacts(recipe.image.spec, (1,) * recipe.image.num_classes or None, recipe.batch_images)


def memory_of(action) -> int:
    """Return the most bytes that were allocated at once during an action, as torch's profiler saw the allocator."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        action()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


@pytest.mark.parametrize(("name", "micro_images", "overrides", "least"), MEASURED)
def test_memory_of_a_turn_is_what_the_allocator_of_a_real_one_shows(name, micro_images, overrides, least):
    recipe = load_recipe(f"bigtrain:{name}", overrides, Recipe)
    game = recipe.game.build(facts_of(recipe))
    prepare(game, recipe, micro_images)
    for cost in measure(recipe, micro_images).turns:
        player = Player(cost.turn.player, game)
        player.take_the_floor()
        for parameter in player.parameters():
            parameter.grad = torch.zeros_like(parameter)
        play(player, cost.turn, recipe, micro_images)  # what is made once and kept
        taken = memory_of(lambda p=player, turn=cost.turn: play(p, turn, recipe, micro_images))
        assert least <= cost.peak_bytes / taken <= 1.001, f"{cost.turn.name}: {cost.peak_bytes} of {taken}"


def test_turns_without_data_cost_what_real_ones_do():
    recipe = load_recipe("bigtrain:digits-stylegan2", ["game.penalties.path_length.every=4"], Recipe)
    game = recipe.game.build(facts_of(recipe))
    prepare(game, recipe, 8)
    for cost in measure(recipe, 8).turns:
        flop, _, peak_bytes = weigh(game, cost.turn, recipe, 8)
        assert flop == cost.flop
        assert peak_bytes == pytest.approx(cost.peak_bytes, rel=2e-3)


def test_turns_of_full_precision_need_as_much_in_bf16():
    def peaks(precision):
        recipe = load_recipe("bigtrain:digits-stylegan2", [f"precision={precision}"], Recipe)
        return {cost.turn.name: cost.peak_bytes for cost in measure(recipe, 8).turns}

    recipe = load_recipe("bigtrain:digits-stylegan2", ["precision=bf16"], Recipe)
    shares = {cost.turn.name: cost.reduced_flop / cost.flop for cost in measure(recipe, 8).turns}
    assert shares["discriminator/r1"] == 0
    assert 0.5 < shares["discriminator/main"] < 1  # the head and the mapping stay in float32
    whole, reduced = peaks("fp32"), peaks("bf16")
    assert reduced["discriminator/r1"] == whole["discriminator/r1"]
    assert reduced["discriminator/main"] < 0.7 * whole["discriminator/main"]


def engine_costs(ranks, overrides):
    """Play each turn of a step by the engine itself, and return name -> FLOP and peak bytes of its one micro-batch."""
    recipe = load_recipe("bigtrain:digits-stylegan2", overrides, Recipe)
    game = build_game(recipe, facts_of(recipe))
    engine = build_engine(recipe, game, start("plain", 1))
    size = (recipe.batch_images, recipe.image.channels, *recipe.image.spec.size)
    number_N = torch.zeros(recipe.batch_images, dtype=torch.int64)
    batch, found = Batch(torch.zeros(size, dtype=torch.uint8), number_N, number_N), {}
    for number, turn in enumerate(game.turns(Progress())):
        for _ in range(2):  # Adam's moments are made in a first step
            with Ledger(owned(game)) as ledger:
                engine.play(turn, number, [None if turn.reads == "none" else batch], Progress()).read()
        gradients = 4 * sum(parameter.numel() for parameter in game.networks[turn.player].parameters())
        found[turn.name] = ledger.flop, ledger.peak_bytes - gradients
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_engine_plays_turns_at_that_cost(precision):
    overrides = ["batch_images=16", "game.penalties.path_length.every=4", f"precision={precision}"]
    (found,) = run_ranks(1, engine_costs, overrides)
    costs = measure(load_recipe("bigtrain:digits-stylegan2", overrides, Recipe), 16).turns
    assert found.keys() == {cost.turn.name for cost in costs}
    for cost in costs:
        flop, peak_bytes = found[cost.turn.name]
        assert flop == cost.flop
        # Gradients come into being one by one there, and were all counted away here.
        assert peak_bytes == pytest.approx(cost.peak_bytes, rel=0.1)


def test_lazy_turns_count_by_how_often_they_are_played():
    recipe = load_recipe("bigtrain:digits-stylegan2", ["game.penalties.path_length.every=3"], Recipe)
    found = {turn.name: per_step for turn, per_step in frequencies(recipe.game.build(facts_of(recipe))).items()}
    assert found == {
        "discriminator/main": 1.0,
        "discriminator/r1": 1 / 16,
        "generator/main": 1.0,
        "generator/path_length": pytest.approx(1 / 3),
    }


def test_stylegan2_at_256_px_costs_the_published_sum():
    """14.92 and 15.38 GMAC forward, so 2 (4.75 G + 8.375 D) = 399 GFLOP an image seen, penalties included."""
    recipe = load_recipe("bigtrain:ffhq256-stylegan2", [], Recipe)
    costs = measure(recipe, 8).turns
    assert sum(cost.per_step * cost.flop for cost in costs) / 8 / 1e9 == pytest.approx(399, rel=0.005)


def forward_gmac(network: nn.Module, *inputs: torch.Tensor) -> float:
    with torch.no_grad(), Ledger() as ledger:
        network.train()(*inputs)
    return ledger.flop / 2 / len(inputs[0]) / 1e9


def test_biggan_in_its_textbook_form_costs_the_published_sum_and_ours_less():
    recipe = load_recipe("bigtrain:imagenet128-biggan", [], Recipe)
    with torch.device("meta"):
        networks = recipe.game.build(facts_of(recipe)).networks
        latent_NZ, label_N = torch.zeros(64, 120), torch.zeros(64, dtype=torch.int64)
        image_NCHW = torch.zeros(64, 3, 128, 128)
    ours = (
        forward_gmac(networks["generator"], latent_NZ, label_N),
        forward_gmac(networks["discriminator"], image_NCHW, label_N),
    )
    textbook = [unfuse_resampling(networks[name]) for name in ("generator", "discriminator")]
    # Attention at 64 px pads queries and keys to the channels of values, 24 to 96 and 12 to 48, which costs
    # 4,096 x 1,024 multiply-adds for each channel more.
    padding = [4_096 * 1_024 * channels / 1e9 for channels in (96 - 24, 48 - 12)]
    assert forward_gmac(textbook[0], latent_NZ, label_N) - padding[0] == pytest.approx(21.12, rel=0.003)
    assert forward_gmac(textbook[1], image_NCHW, label_N) - padding[1] == pytest.approx(10.84, rel=0.003)
    assert ours[0] - padding[0] == pytest.approx(13.3, rel=0.005)
    assert ours[1] - padding[1] == pytest.approx(6.8, rel=0.01)


def test_more_images_need_more_memory_and_as_much_arithmetic_each():
    recipe = load_recipe("bigtrain:digits-biggan", ["batchnorm_images=8"], Recipe)
    small, large = (measure(recipe, images) for images in (8, 16))
    for few, many in zip(small.turns, large.turns, strict=True):
        assert 1.5 < many.peak_bytes / few.peak_bytes < 2
        assert many.flop == pytest.approx(2 * few.flop, rel=0.05)


def test_a_group_over_many_ranks_needs_no_other_ranks():
    recipe = load_recipe("bigtrain:digits-biggan", [], Recipe)  # groups of 32
    alone = load_recipe("bigtrain:digits-biggan", ["batchnorm_images=4"], Recipe)
    assert [cost.flop for cost in measure(recipe, 4).turns] == [cost.flop for cost in measure(alone, 4).turns]
