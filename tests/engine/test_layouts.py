"""One turn is the same function of the global batch, whatever the ranks, the micro-batch and the accumulation."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bigtrain.data.batch import Batch
from bigtrain.engine.ema import AverageSettings, WeightAverages
from bigtrain.engine.engine import Engine, EngineSettings
from bigtrain.engine.optimizers import AdamSettings
from bigtrain.engine.processes.launch import start
from bigtrain.engine.ranks import Ranks
from bigtrain.games.base import DataFacts
from bigtrain.games.noise_to_image import NoiseToImageSettings
from bigtrain.networks.biggan import BigGANDiscriminatorSettings, BigGANGeneratorSettings
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.layout import Layout
from bigtrain.recipe.progress import Progress
from tests.rank_pool import run_ranks

BATCH_IMAGES = 16
BATCHNORM_IMAGES = 8
STEPS = 5
SPEC = ImageSpec(side=32, channels=1, num_classes=3)
LAYOUTS = [
    (1, 16),
    (1, 8),
    (2, 8),
    (2, 4),
]  # (ranks, micro-batch): whole, accumulated, two ranks, groups across ranks + accumulated


def toy_game(objective: str = "hinge", discriminator_turns: int = 1) -> Any:
    torch.manual_seed(0)
    settings = NoiseToImageSettings(
        generator=BigGANGeneratorSettings(width=4, latent_dim=16, shared_dim=8, attention_sides=(16,)),
        discriminator=BigGANDiscriminatorSettings(width=4, attention_sides=(16,)),
        objective=objective,
        discriminator_turns=discriminator_turns,
    )
    return settings.build(DataFacts(SPEC, (5, 3, 2)))


def images_at(position: int, layout: Layout, micro_index: int) -> Batch:
    """Real images as a function of their position alone."""
    whole = torch.Generator().manual_seed(position)
    image_NCHW = torch.randint(0, 256, (BATCH_IMAGES, 1, 32, 32), generator=whole, dtype=torch.uint8)
    label_N = torch.randint(0, 3, (BATCH_IMAGES,), generator=whole)
    rows = list(layout.positions(micro_index))
    return Batch(image_NCHW[rows], label_N[rows], torch.tensor(rows))


def trained(
    ranks: Ranks, micro_images: int, steps: int, dtype: torch.dtype, options: dict[str, Any] | None = None
) -> dict[str, Tensor]:
    """Play steps on this rank and return every network, average and Adam moment."""
    options = dict(options or {})
    engine_name, eps = options.pop("engine", "ddp"), options.pop("eps", 1e-6)
    launch = start("plain" if ranks.world == 1 else engine_name, 1, ("discriminator", "generator"))
    layout = Layout(ranks.rank, ranks.world, micro_images, BATCH_IMAGES)
    build = options.pop("build", None)
    game = build() if build else toy_game(options.pop("objective", "hinge"), options.pop("discriminator_turns", 1))
    optimizers = {name: AdamSettings(learning_rate={"constant": 2e-4}, eps=eps) for name in game.players}
    settings = EngineSettings(0, layout, optimizers, batchnorm_images=BATCHNORM_IMAGES, dtype=dtype, **options)
    engine, progress = Engine(game, settings, launch), Progress()
    averages = WeightAverages((AverageSettings(halflife_images=40),), game)
    none: tuple[Batch | None, ...] = (None,) * layout.accumulation
    for _ in range(steps):
        for number, turn in enumerate(game.turns(progress)):
            if turn.reads == "next":
                batches = tuple(images_at(progress.position, layout, micro) for micro in range(layout.accumulation))
                progress = progress.after_read(BATCH_IMAGES)
            played = engine.play(turn, number, none if turn.reads == "none" else batches, progress)
            assert played.read().stepped
        averages.update(BATCH_IMAGES, progress.images_seen)
        progress = progress.after_step(BATCH_IMAGES)
    tensors = {f"{name}.{key}": t for name, net in game.networks.items() for key, t in net.state_dict().items()}
    tensors |= {f"average.{key}": tensor for key, tensor in averages.state().items()}
    tensors |= {f"game.{key}": tensor for key, tensor in game.state.state_dict().items()}
    for name, wrapped in engine.wrapped.items():
        tensors |= {f"{name}/{key}": t for key, t in wrapped.state().items()}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def disagreements(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, float]:
    """Per tensor |difference| / |reference|; tensors under 1e-6 of the largest norm absolutely (DESIGN section 8)."""
    assert ours.keys() == theirs.keys()
    largest = max(float(tensor.double().norm()) for tensor in theirs.values())
    found = {}
    for name, reference in theirs.items():
        norm, gap = float(reference.double().norm()), float((ours[name].double() - reference.double()).norm())
        found[name] = gap / norm if norm > 1e-6 * largest else gap
    return found


@pytest.mark.parametrize(("world", "micro_images"), LAYOUTS[1:])
@pytest.mark.parametrize("options", [{}, {"objective": "relativistic", "discriminator_turns": 2, "mirror": True}])
def test_five_float64_steps_agree_with_one_process(world: int, micro_images: int, options: dict[str, Any]) -> None:
    (whole,) = run_ranks(1, trained, 16, STEPS, torch.float64, options)
    for dealt in run_ranks(world, trained, micro_images, STEPS, torch.float64, options):
        worst = max(disagreements(dealt, whole).items(), key=lambda item: item[1])
        assert worst[1] <= 1e-9, worst


@pytest.mark.parametrize(("world", "micro_images"), LAYOUTS[1:])
def test_first_float32_gradients_agree_with_one_process(world: int, micro_images: int) -> None:
    # With beta1 = 0 Adam's first moment is the gradient itself.
    (whole,) = run_ranks(1, trained, 16, 1, torch.float32)
    gradients = {
        name: tensor for name, tensor in whole.items() if name.startswith("discriminator/") and name.endswith("exp_avg")
    }
    assert len(gradients) > 10
    for dealt in run_ranks(world, trained, micro_images, 1, torch.float32):
        worst = max(
            disagreements({name: dealt[name] for name in gradients}, gradients).items(), key=lambda item: item[1]
        )
        assert worst[1] <= 1e-5, worst


def test_ranks_hold_the_same_bits() -> None:
    first, second = run_ranks(2, trained, 4, 2, torch.float32)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_moves_every_parameter_of_both_players() -> None:
    (after,) = run_ranks(1, trained, 16, 1, torch.float32)
    before = {f"{name}.{key}": p for name, net in toy_game().networks.items() for key, p in net.named_parameters()}
    still = [name for name, parameter in before.items() if torch.equal(parameter, after[name])]
    # Attention starts with a gain of 0, so nothing inside it has a gradient in the first step.
    assert all("attention" in name for name in still), still
