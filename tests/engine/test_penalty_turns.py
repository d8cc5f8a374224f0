"""StyleGAN2's turns through the engine: equal in every layout, in float32 where they differentiate twice, and none of
them waits for the device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bigtrain.engine.engine import Engine, EngineSettings
from bigtrain.engine.optimizers import AdamSettings
from bigtrain.engine.processes.launch import start
from bigtrain.engine.ranks import Ranks
from bigtrain.games.base import DataFacts
from bigtrain.games.noise_to_image import NoiseToImageSettings
from bigtrain.networks.stylegan2 import StyleGAN2GeneratorSettings
from bigtrain.networks.stylegan2_discriminator import StyleGAN2DiscriminatorSettings
from bigtrain.recipe.layout import Layout
from bigtrain.recipe.progress import Progress
from tests.engine.test_layouts import BATCH_IMAGES, LAYOUTS, SPEC, disagreements, images_at, trained
from tests.rank_pool import run_ranks

STD_IMAGES = 8
PENALTIES = {"r1": {"gamma": 1.0, "every": 2}, "path_length": {"every": 2}}


def stylegan2_game(**options: Any) -> Any:
    torch.manual_seed(0)
    small = {"channel_base": 64, "channel_max": 8, "mapping_layers": 2}
    settings = NoiseToImageSettings(
        generator=StyleGAN2GeneratorSettings(**small, latent_dim=6, style_dim=6, noise="const"),
        discriminator=StyleGAN2DiscriminatorSettings(**small),
        objective="non_saturating",
        style_mixing=0.5,
        **{"penalties": PENALTIES, **options},
    )
    return settings.build(DataFacts(SPEC, (5, 3, 2), BATCH_IMAGES))


def augmented_game() -> Any:
    return stylegan2_game(augment={"kind": "ada", "probability": 0.5, "every": 2, "speed_images": 100})


@pytest.mark.parametrize(("world", "micro_images"), LAYOUTS[1:])
@pytest.mark.parametrize("build", [stylegan2_game, augmented_game])
def test_five_float64_steps_agree_with_one_process(world: int, micro_images: int, build: Any) -> None:
    options = {"build": build, "minibatch_std_images": STD_IMAGES}
    (whole,) = run_ranks(1, trained, 16, 5, torch.float64, options)
    assert whole["game.path_length.mean"] > 0
    assert whole["generator.mapping.average.mean"].abs().max() > 0
    for dealt in run_ranks(world, trained, micro_images, 5, torch.float64, options):
        worst = max(disagreements(dealt, whole).items(), key=lambda item: item[1])
        assert worst[1] <= 1e-9, worst


def estimating_game() -> Any:
    penalties = {"r1": {"gamma": 1.0, "every": 2, "method": "finite_difference"}, "path_length": {"every": 2}}
    return stylegan2_game(penalties=penalties)


def engine_of(ranks: Ranks, build: Any = augmented_game, **options: Any) -> Engine:
    launch = start("plain", timeout_minutes=1)
    optimizers = {name: AdamSettings() for name in ("generator", "discriminator")}
    layout = Layout(ranks.rank, ranks.world, BATCH_IMAGES, BATCH_IMAGES)
    settings = EngineSettings(0, layout, optimizers, minibatch_std_images=STD_IMAGES, **options)
    return Engine(build(), settings, launch)


class NoWaiting(TorchDispatchMode):
    """Raises on operators whose result the host has to see."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "item")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.WAITS, f"{func} waits for the device"
        if name == "index":
            assert all(index is None or index.dtype != torch.bool for index in args[1]), "a mask has a length"
        return func(*args, **(kwargs or {}))


def play_without_waiting(ranks: Ranks, precision: str) -> list[str]:
    engine = engine_of(ranks, precision=precision)
    batch = images_at(0, engine.layout, 0)
    played = []
    for step in range(3):
        progress = Progress(steps=step, images_seen=step * BATCH_IMAGES)
        for number, turn in enumerate(engine.game.turns(progress)):
            with NoWaiting():
                outcome = engine.play(turn, number, (None if turn.reads == "none" else batch,), progress)
            assert outcome.read().stepped
            played.append(turn.name)
    return played


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_turn_waits_for_the_device(precision: str) -> None:
    (played,) = run_ranks(1, play_without_waiting, precision)
    assert set(played) == {"discriminator/main", "discriminator/r1", "generator/main", "generator/path_length"}


@contextmanager
def dtypes_of_convolutions() -> Iterator[set[torch.dtype]]:
    """Collect the dtypes that convolutions run in."""
    seen: set[torch.dtype] = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.overloadpacket.__name__ == "convolution":
                seen.add(args[0].dtype)
                assert args[8] == 1, "a grouped convolution, whose double backward loops over its groups"
            return func(*args, **(kwargs or {}))

    with Watch():
        yield seen


def dtypes_of_turns(ranks: Ranks, build: Any) -> dict[str, set[torch.dtype]]:
    engine = engine_of(ranks, build, precision="bf16")
    batch, found = images_at(0, engine.layout, 0), {}
    for number, turn in enumerate(engine.game.turns(Progress())):
        with dtypes_of_convolutions() as seen:
            engine.play(turn, number, (None if turn.reads == "none" else batch,), Progress())
        found[turn.name] = seen
    return found


@pytest.mark.parametrize("build", [augmented_game, estimating_game])
def test_penalty_turns_stay_in_float32_under_bf16(build: Any) -> None:
    (found,) = run_ranks(1, dtypes_of_turns, build)
    assert found["discriminator/r1"] == found["generator/path_length"] == {torch.float32}
    assert torch.bfloat16 in found["discriminator/main"]
    assert torch.bfloat16 in found["generator/main"]
