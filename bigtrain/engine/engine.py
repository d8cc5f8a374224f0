"""Plays turns: forward, backward and step of one player over a global batch, dealt to micro-batches and ranks.

Whatever the world size and the accumulation, one turn is the same function of the global batch: draws are indexed by
the image, BatchNorm's groups by `batchnorm_images`, gradients are the mean over all images, statistics the mean over
all ranks.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bigtrain.data.batch import Batch
from bigtrain.draws import Draws, seed_of
from bigtrain.engine.launch import Launch
from bigtrain.engine.optimizers import AdamSettings, set_learning_rate
from bigtrain.engine.players import Player
from bigtrain.engine.precision import autocast, build_scaler
from bigtrain.games.base import Game, Turn
from bigtrain.networks.layers.batchnorm import BatchStatistics
from bigtrain.networks.layers.spectral import advance_power_iterations
from bigtrain.networks.layers.statistics import (
    commit_running_statistics,
    discard_pending_statistics,
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
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Played:
    """What a turn did: figures averaged over micro-batches and ranks, and whether the step was taken."""

    figures: dict[str, float]
    stepped: bool
    is_rescaled: bool = False
    """The step was skipped because fp16 overflowed, and the loss scale could still be halved: no sign of divergence."""


class Engine:
    """Owns the players' wrapped networks, optimizers and loss scalers."""

    def __init__(self, game: Game, settings: EngineSettings, launch: Launch) -> None:
        self.game, self.settings, self.launch = game, settings, launch
        self.layout, self.ranks, self.device = settings.layout, launch.ranks, launch.device
        for network in game.networks.values():
            network.to(self.device, settings.dtype)
        game.state.to(self.device)
        self.players = {name: Player(name, game) for name in game.players}
        self.optimizers = {name: settings.optimizers[name].build(player) for name, player in self.players.items()}
        self.scalers = {name: build_scaler(settings.precision, self.device) for name in self.players}
        self.wrapped: dict[str, nn.Module] = {
            name: launch.accelerator.prepare_model(player) for name, player in self.players.items()
        }
        self._statistics = self._batch_statistics()

    def _batch_statistics(self) -> dict[str, BatchStatistics]:
        """Return the policy of BatchNorm for networks on turn and off turn."""
        group_images, micro_images = self.settings.batchnorm_images, self.layout.micro_images
        ranks, reduce = 1, None
        if group_images is not None and group_images > micro_images:
            ranks = group_images // micro_images
            reduce = self.ranks.group(ranks).sum
        return {
            "on": BatchStatistics(group_images=group_images, ranks=ranks, reduce=reduce, update="later"),
            "off": BatchStatistics(group_images=group_images, ranks=ranks, reduce=reduce, update="never"),
        }

    def play(self, turn: Turn, number: int, batches: Sequence[Batch | None], progress: Progress) -> Played:
        """Play the `number`-th turn of a step on this rank's micro-batches and return its figures.

        A non-finite loss or gradient skips the step on all ranks: no parameter, moment or running statistic changes.
        """
        self._prepare(turn)
        terms: list[dict[str, Tensor]] = []
        for micro_index, batch in enumerate(batches):
            is_last = micro_index == len(batches) - 1
            terms.append(self._play_micro_batch(turn, number, micro_index, is_last, batch, progress))
        norm = self._finish_gradients(turn.player)
        figures = self._average(terms, norm, turn.player)
        stepped = all(math.isfinite(value) for value in figures.values())
        scaler = self.scalers[turn.player]
        is_rescaled = not stepped and scaler.is_enabled() and scaler.get_scale() > 1
        self._step(turn, progress.images_seen, stepped)
        if stepped:
            self.game.after_turn(turn, figures)
        return Played(figures, stepped, is_rescaled)

    def _prepare(self, turn: Turn) -> None:
        player = self.players[turn.player]
        player.take_the_floor()
        for network in player.own.values():
            network.train()
            advance_power_iterations(network)
            set_batch_statistics(network, self._statistics["on"])
        for network in player.others.values():
            network.train()
            set_batch_statistics(network, self._statistics["off"])

    def draws(self, number: int, micro_index: int, progress: Progress) -> Draws:
        """Return the draws of one micro-batch of the `number`-th turn."""
        index_N = torch.tensor(list(self.layout.positions(micro_index)), device=self.device)
        return Draws(self.settings.seed, progress.salt, progress.steps, number, index_N, self.settings.dtype)

    def _on_device(self, batch: Batch, draws: Draws) -> Batch:
        flip_N = draws.uniform("flip") < 0.5 if self.settings.mirror else None
        real = batch.on_device(self.device, flip_N)
        return replace(real, image_NCHW=real.image_NCHW.to(self.settings.dtype))

    def _play_micro_batch(
        self, turn: Turn, number: int, micro_index: int, is_last: bool, batch: Batch | None, progress: Progress
    ) -> dict[str, Tensor]:
        draws = self.draws(number, micro_index, progress)
        real = None if batch is None else self._on_device(batch, draws)
        # Per-pixel noise and dropout come from torch's generators: equal again after a restart in an equal layout.
        facts = (self.settings.seed, progress.salt, progress.steps, number, micro_index, self.ranks.rank)
        torch.manual_seed(seed_of(*facts))
        with self._reduction(turn.player, is_last):
            with autocast(self.settings.precision, self.device):
                loss = self.wrapped[turn.player](turn, real, draws, progress)
            self.scalers[turn.player].scale(loss.value / self.layout.accumulation).backward()
        return loss.stats

    def _reduction(self, player: str, is_last: bool) -> AbstractContextManager[object]:
        """Reduce gradients in the last micro-batch only: one reduction a turn."""
        return nullcontext() if is_last else self.launch.accelerator.no_sync(self.wrapped[player])

    def _finish_gradients(self, name: str) -> Tensor:
        """Unscale gradients, give zeros to parameters without one, and return the norm over all of them."""
        player = self.players[name]
        self.scalers[name].unscale_(self.optimizers[name])
        for parameter in player.parameters():
            if parameter.grad is None:  # so that Adam's moments decay alike under every engine
                parameter.grad = torch.zeros_like(parameter)
        return torch.nn.utils.get_total_norm([p.grad for p in player.parameters() if p.grad is not None])

    def _average(self, terms: list[dict[str, Tensor]], norm: Tensor, player: str) -> dict[str, float]:
        """Return means over micro-batches and ranks, with one reduction and one device sync."""
        names = sorted(terms[0])
        rows = torch.stack([torch.stack([term[name].double() for name in names]) for term in terms])
        vector = torch.cat([rows.mean(0), norm.detach().double()[None]])
        means = self.ranks.mean_tensor(vector).tolist()
        return dict(zip([*names, f"gradient_norm_{player}"], means, strict=True))

    def _step(self, turn: Turn, images_seen: int, stepped: bool) -> None:
        name = turn.player
        optimizer, scaler = self.optimizers[name], self.scalers[name]
        if stepped:
            set_learning_rate(optimizer, self.settings.optimizers[name].learning_rate.at(images_seen))
            optimizer.step()  # not scaler.step: whether values are finite is agreed across ranks already
        if scaler.is_enabled():
            scaler.update()  # backs off where unscaling met a non-finite gradient, which every rank has met alike
        optimizer.zero_grad(set_to_none=True)
        for network in self.players[name].own.values():
            if stepped:
                commit_running_statistics(network, self.ranks.mean_tensor)
            else:
                discard_pending_statistics(network)
