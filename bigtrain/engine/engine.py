"""Plays turns: forward, backward and step of one player over a global batch, dealt to micro-batches and ranks.

Whatever the world size and the accumulation, one turn is the same function of the global batch: draws are indexed by
the image, statistics groups by `batchnorm_images` and `minibatch_std_images`, gradients are the mean over all images,
statistics the mean over all ranks. The engine never waits for the device: whether a step is made is decided there, and
its figures are read later (DDP itself may wait, where a parameter got no gradient).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from bigtrain.data.batch import Batch
from bigtrain.draws import Draws, seed_of
from bigtrain.engine import faults
from bigtrain.engine.optimizers import AdamSettings
from bigtrain.engine.pace import Pace
from bigtrain.engine.players import Player
from bigtrain.engine.precision import build_scaler, compiler
from bigtrain.engine.processes.launch import Launch
from bigtrain.engine.readback import Readback
from bigtrain.engine.wrapping import wrap
from bigtrain.games.base import Game, Turn
from bigtrain.networks.layers.minibatch_std import set_minibatch_std
from bigtrain.networks.layers.running import BatchStatistics
from bigtrain.networks.layers.spectral import advance_power_iterations
from bigtrain.networks.layers.statistics import (
    commit_running_statistics,
    set_batch_statistics,
)
from bigtrain.recipe.layout import Layout
from bigtrain.recipe.progress import Progress


@dataclass(frozen=True)
class EngineSettings:
    """What the engine takes from a recipe."""

    seed: int
    layout: Layout
    optimizers: dict[str, AdamSettings]
    precision: str = "fp32"
    mirror: bool = False
    batchnorm_images: int | None = None
    minibatch_std_images: int | None = None
    compile: str = "none"
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Outcome:
    """What a turn did: figures averaged over micro-batches and ranks, and whether the step was made."""

    figures: dict[str, float]
    stepped: bool
    is_rescaled: bool = False
    """The step was skipped because fp16 overflowed, and the loss scale could still be halved: no sign of divergence."""


@dataclass(frozen=True)
class Played:
    """A turn whose numbers may still be on the device."""

    names: tuple[str, ...]
    """Of the figures, in the order of the numbers; after them come `stepped` and `is_rescaled`."""
    numbers: Readback

    def read(self) -> Outcome:
        """Wait until the turn is over, and return what it did."""
        *figures, stepped, is_rescaled = self.numbers.read()
        return Outcome(dict(zip(self.names, figures, strict=True)), bool(stepped), bool(is_rescaled))


class Engine:
    """Owns the players' wrapped networks, optimizers and loss scalers."""

    def __init__(self, game: Game, settings: EngineSettings, launch: Launch) -> None:
        self.game, self.settings, self.launch = game, settings, launch
        self.layout, self.ranks, self.device = settings.layout, launch.ranks, launch.device
        self.pace = Pace(launch.device)
        for network in game.networks.values():
            network.to(self.device, settings.dtype)
        game.state.to(self.device, settings.dtype)
        if settings.compile != "none":
            game.compile(compiler(settings.compile))
        self.players = {name: Player(name, game, settings.precision) for name in game.players}
        self.optimizers = {
            name: settings.optimizers[name].build(player, game.main_shares[name])
            for name, player in self.players.items()
        }
        self.scalers = {name: build_scaler(settings.precision, self.device) for name in self.players}
        self.wrapped = {
            name: wrap(player, self.optimizers[name], self.scalers[name], launch)
            for name, player in self.players.items()
        }
        self._batchnorm = {
            "on": self._statistics(settings.batchnorm_images, "later"),
            "off": self._statistics(settings.batchnorm_images, "never"),
        }
        for network in game.networks.values():
            set_minibatch_std(network, self._statistics(settings.minibatch_std_images, "never"))

    def _statistics(self, group_images: int | None, update: Literal["later", "never"]) -> BatchStatistics:
        """Return the policy of layers whose statistics run over so many images; None: over a micro-batch."""
        micro_images = self.layout.micro_images
        if group_images is None or group_images <= micro_images:
            return BatchStatistics(group_images, update=update)
        ranks = group_images // micro_images
        return BatchStatistics(group_images, ranks, self.ranks.group(ranks).sum, update)

    def play(self, turn: Turn, number: int, batches: Sequence[Batch | None], progress: Progress) -> Played:
        """Play the `number`-th turn of a step on this rank's micro-batches and return its figures, to be read later.

        A non-finite loss or gradient skips the step on all ranks: no parameter, moment or running statistic changes.
        """
        self._prepare(turn)
        terms: list[dict[str, Tensor]] = []
        for micro_index, batch in enumerate(batches):
            is_last = micro_index == len(batches) - 1
            terms.append(self._play_micro_batch(turn, number, micro_index, is_last, batch, progress))
        figures = self._average(terms, self.wrapped[turn.player].squared_norm(), turn)
        stepped = torch.stack(list(figures.values())).isfinite().all()
        is_rescaled = ~figures[norm_name(turn)].isfinite() & self._can_rescale(turn.player)
        self._step(turn.player, progress.images_seen, stepped)
        self._observe(turn, figures, stepped)
        numbers = [*figures.values(), stepped, is_rescaled]
        return Played(tuple(figures), Readback(torch.stack([number.double() for number in numbers])))

    def _prepare(self, turn: Turn) -> None:
        player = self.players[turn.player]
        player.take_the_floor()
        for network in player.own.values():
            network.train()
            advance_power_iterations(network)
            set_batch_statistics(network, self._batchnorm["on"])
        for network in player.others.values():
            network.train()
            set_batch_statistics(network, self._batchnorm["off"])

    def draws(self, number: int, micro_index: int, progress: Progress) -> Draws:
        """Return the draws of one micro-batch of the `number`-th turn."""
        positions = self.layout.positions(micro_index)
        index_N = torch.arange(positions.start, positions.stop, device=self.device)
        return Draws(self.settings.seed, progress.salt, progress.steps, number, index_N, self.settings.dtype)

    def _on_device(self, batch: Batch, draws: Draws) -> Batch:
        flip_N = draws.uniform("flip") < 0.5 if self.settings.mirror else None
        real = batch.on_device(self.device, flip_N)
        second = real.image_b_NCHW
        return replace(
            real,
            image_NCHW=faults.spoil("data", real.image_NCHW.to(self.settings.dtype)),
            image_b_NCHW=None if second is None else second.to(self.settings.dtype),
        )

    def _play_micro_batch(
        self, turn: Turn, number: int, micro_index: int, is_last: bool, batch: Batch | None, progress: Progress
    ) -> dict[str, Tensor]:
        self.pace.begin()
        draws = self.draws(number, micro_index, progress)
        real = None if batch is None else self._on_device(batch, draws)
        # Per-pixel noise and dropout come from torch's generators: equal again after a restart in an equal layout.
        facts = (self.settings.seed, progress.salt, progress.steps, number, micro_index, self.ranks.rank)
        torch.manual_seed(seed_of(*facts))
        wrapped = self.wrapped[turn.player]
        with wrapped.reduction(is_last):
            loss = wrapped.play(turn, real, draws, progress)
            faults.reach("backward")
            value = faults.spoil("backward", loss.value / self.layout.accumulation)
            self.pace.end_after(value)
            wrapped.backward(value)
        return loss.stats

    def _average(self, terms: list[dict[str, Tensor]], squared_norm: Tensor, turn: Turn) -> dict[str, Tensor]:
        """Return means over micro-batches and ranks, float64 scalars, with one reduction."""
        faults.reach("allreduce")
        names = sorted(terms[0])
        rows = torch.stack([torch.stack([term[name].double() for name in names]) for term in terms])
        *means, square = self.ranks.mean_tensor(torch.cat([rows.mean(0), squared_norm[None]])).unbind()
        return {**dict(zip(names, means, strict=True)), norm_name(turn): square.sqrt()}

    def _can_rescale(self, player: str) -> Tensor:
        """Return a bool scalar: whether the player's loss scale is there and may still be halved."""
        scaler = self.scalers[player]
        one = torch.ones((), device=self.device)
        return scaler.scale(one) > 1 if scaler.is_enabled() else one < 0

    def _step(self, name: str, images_seen: int, stepped: Tensor) -> None:
        rate = self.settings.optimizers[name].learning_rate_at(images_seen, self.game.main_shares[name])
        self.wrapped[name].step(rate, stepped)
        for network in self.players[name].own.values():
            commit_running_statistics(network, self.ranks.mean_tensor, wanted=stepped)

    def _observe(self, turn: Turn, figures: dict[str, Tensor], stepped: Tensor) -> None:
        """Let the game see its statistics, and put its state back where the turn was skipped."""
        state = self.game.state.state_dict().values()
        before = [tensor.clone() for tensor in state]
        with torch.no_grad():
            self.game.after_turn(turn, figures)
            for tensor, old in zip(state, before, strict=True):
                tensor.copy_(torch.where(stepped, tensor, old))


def norm_name(turn: Turn) -> str:
    """Return what the log calls the norm of a turn's gradient."""
    return f"gradient_norm_{turn.player if turn.loss == 'main' else turn.loss}"
