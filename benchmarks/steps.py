"""Both players' turns of StyleGAN2 and BigGAN at 64 and 128 px, and the moving average, against their textbook forms.

A turn is the game's own loss, backward and a fused Adam step, on fixed images, 2 CPU threads (or OMP_NUM_THREADS). Ours
and the reference play the same game with the same numbers; the reference's networks have the layers of
`reference_forms.py` and `reference_stylegan2.py`. Rows named bf16 compare ours under autocast (`ours`) with ours in
float32 (`reference`).
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.reference_forms import average_per_tensor, iterate_per_forward, unfuse_resampling
from benchmarks.reference_stylegan2 import textbook_stylegan2
from benchmarks.timing import Row, compare, main
from bigtrain.data.batch import Batch
from bigtrain.draws import Draws
from bigtrain.engine.ema import AverageSettings, WeightAverage
from bigtrain.engine.precision import autocast
from bigtrain.games.base import DataFacts, Turn
from bigtrain.games.noise_to_image import NoiseToImageSettings
from bigtrain.networks.layers.minibatch_std import set_minibatch_std
from bigtrain.networks.layers.running import BatchStatistics
from bigtrain.networks.layers.spectral import advance_power_iterations
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.progress import Progress

NUM_THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
GROUP_IMAGES = 4  # of StyleGAN2's minibatch standard deviation
Change = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True)
class Case:
    """A game to measure, and what makes a network of it textbook."""

    title: str
    image: ImageSpec
    batch_images: int
    settings: Mapping[str, Any]
    change: Change

    def build(self, change: Change | None) -> Any:
        """Return the game with seeded weights, its networks changed."""
        torch.manual_seed(0)
        game = NoiseToImageSettings.model_validate(self.settings).build(DataFacts(self.image))
        for name, network in game.networks.items():
            game.networks[name] = network if change is None else change(network)
            set_minibatch_std(game.networks[name], BatchStatistics(GROUP_IMAGES))
        return game


def _textbook_biggan(network: nn.Module) -> nn.Module:
    return iterate_per_forward(unfuse_resampling(network))


def stylegan2(side: int) -> Case:
    """StyleGAN2 with channel_base 4096 and batch 8, as shipped but for the number of channels."""
    network = {"kind": "stylegan2", "channel_base": 4096}
    penalties = {"r1": {"gamma": 1.0, "every": 16}, "path_length": {"every": 4}}
    settings = {
        "objective": "non_saturating",
        "generator": network,
        "discriminator": network,
        "penalties": penalties,
        "style_mixing": 0.9,
    }
    return Case(f"stylegan2-{side} base 4096 batch 8", ImageSpec(side, 3, 0), 8, settings, textbook_stylegan2)


def biggan(side: int) -> Case:
    """BigGAN with width 32 and batch 16."""
    network = {"kind": "biggan", "width": 32, "init": "normal02"}
    settings = {"objective": "hinge", "generator": network, "discriminator": network}
    return Case(f"biggan-{side} width 32 batch 16", ImageSpec(side, 3, 1000), 16, settings, _textbook_biggan)


class Player:
    """Plays any turn of a game on fixed inputs."""

    def __init__(self, case: Case, change: Change | None, precision: str = "fp32") -> None:
        self.game, self.precision, self.is_ours = case.build(change), precision, change is None
        shares = self.game.main_shares
        self.adam = {
            name: torch.optim.Adam(network.parameters(), lr=1e-5 * shares[name], betas=(0.0, 0.99), fused=True)
            for name, network in self.game.networks.items()
        }
        self.draws = Draws(0, 0, 0, 0, torch.arange(case.batch_images))
        made = torch.Generator().manual_seed(0)
        size = (case.batch_images, case.image.channels, *case.image.size)
        label_N = torch.randint(max(1, case.image.num_classes), (case.batch_images,), generator=made)
        self.real = Batch(torch.rand(size, generator=made) * 2 - 1, label_N, torch.arange(case.batch_images))

    def play(self, turn: Turn) -> None:
        """Forward, backward, step."""
        for name, network in self.game.networks.items():
            network.requires_grad_(name == turn.player)
        if self.is_ours:
            advance_power_iterations(self.game.networks[turn.player])
        with autocast("fp32" if turn.full_precision else self.precision, torch.device("cpu")):
            loss = self.game.loss(turn, self.game.networks, self.real, self.draws, Progress())
        loss.value.backward()
        self.adam[turn.player].step()
        self.adam[turn.player].zero_grad()


def _turn_rows(title: str, ours: Player, reference: Player) -> Iterator[tuple[Turn, Row]]:
    for turn in ours.game.turns(Progress()):
        row = compare(f"{title}: {turn.name}", lambda t=turn: ours.play(t), lambda t=turn: reference.play(t))
        yield turn, row


def _whole_step(title: str, game: Any, rows: list[tuple[Turn, Row]]) -> Row:
    """Return the time of a step with every lazy penalty's turn counted as often as it is due."""

    def total(side: str) -> float:
        weights = {name: 1 / penalty.every for name, penalty in game.penalties.items()}
        return sum(row[side] * weights.get(turn.loss, 1.0) for turn, row in rows)

    ours_s, reference_s = total("ours"), total("reference")
    return Row(name=f"{title}: whole step", ours=ours_s, reference=reference_s, ratio=reference_s / ours_s, unit="s")


def case_rows(case: Case) -> Iterator[Row]:
    """Yield a row for each turn against the textbook, the whole step, and bf16 against float32 where the CPU has it."""
    ours = Player(case, None)
    rows = list(_turn_rows(case.title, ours, Player(case, case.change)))
    yield from (row for _, row in rows)
    yield _whole_step(case.title, ours.game, rows)
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return
    reduced = Player(case, None, "bf16")
    for turn in ours.game.turns(Progress()):
        if not turn.full_precision:
            name = f"{case.title}: {turn.name}, bf16"
            yield compare(name, lambda t=turn: reduced.play(t), lambda t=turn: ours.play(t))


def average_rows(case: Case) -> Iterator[Row]:
    """Yield the moving average of a generator against one tensor after the other."""
    generator = case.build(None).networks["generator"]
    average = WeightAverage(AverageSettings(halflife_images=10_000), {"generator": generator})
    copied = average.networks["generator"]
    name = f"{case.title}: moving average"
    yield compare(name, lambda: average.update(32, 10**6), lambda: average_per_tensor(copied, generator, 0.998), 21)


def measure() -> list[Row]:
    """Return all rows."""
    torch.set_num_threads(NUM_THREADS)
    rows: list[Row] = []
    for case in (stylegan2(64), biggan(64), stylegan2(128), biggan(128)):
        rows += case_rows(case)
    for case in (stylegan2(64), biggan(64)):
        rows += average_rows(case)
    return rows


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
