"""Speed of the digits run: whole steps of the shipped recipe against a bare loop of the same networks and Adam.

    python -m benchmarks.digits [--json FILE]

Ours is everything a step of the run does: reading shards, draws, both turns, finite checks, figures, moving average.
The reference is the least that the same mathematics needs: images that lie in memory as floats, torch's own random
numbers, two backward passes, two Adam steps and the same power iterations; no average, no figures, no checks.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.timing import Row, compare, main
from bigtrain.data.digits import write_digits
from bigtrain.engine.processes.launch import start
from bigtrain.games.base import Turn
from bigtrain.networks.layers.running import BatchStatistics
from bigtrain.networks.layers.spectral import advance_power_iterations
from bigtrain.networks.layers.statistics import commit_running_statistics, set_batch_statistics
from bigtrain.recipe.load import load_recipe
from bigtrain.training.build import build, build_game
from bigtrain.training.run import Run
from bigtrain.training.schema import Recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "digits-biggan.yaml"
STEPS = 10


def play_steps(run: Run) -> None:
    """Play whole steps of the run, without hooks."""
    for _ in range(STEPS):
        run.begin_step()
        for number, turn in enumerate(run.game.turns(run.progress)):
            run.play(number, turn)
        run.end_step()


class BareLoop:
    """The same game played by hand on images in memory."""

    def __init__(self, run: Run) -> None:
        self.recipe, self.game = run.recipe, build_game(run.recipe, run.facts)
        batch = run.shards.load(run.shards.numbers()).on_device(torch.device("cpu"))
        self.image_NCHW, self.label_N = batch.image_NCHW, batch.label_N
        self.players = {
            name: (network, run.recipe.optimizers[name].build(network)) for name, network in self.game.networks.items()
        }
        self.at = 0

    def play_steps(self) -> None:
        """Play as many steps."""
        for _ in range(STEPS):
            for turn in self.game.turns(None):
                self._play(turn)

    def _play(self, turn: Turn) -> None:
        own, optimizer = self.players[turn.player]
        for name, (network, _) in self.players.items():
            network.train().requires_grad_(name == turn.player)
            update = "later" if name == turn.player else "never"
            set_batch_statistics(network, BatchStatistics(self.recipe.batchnorm_images, update=update))
        advance_power_iterations(own)
        loss = self._loss(turn)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        commit_running_statistics(own)

    def _loss(self, turn: Turn) -> Tensor:
        batch_images, objective = self.recipe.batch_images, self.game.objective
        generator, discriminator = (self.players[name][0] for name in ("generator", "discriminator"))
        part = torch.arange(self.at, self.at + batch_images) % len(self.image_NCHW)
        self.at += batch_images
        label_N = self.label_N[part]
        with torch.set_grad_enabled(turn.player == "generator"):
            fake_NCHW = generator(torch.randn(batch_images, generator.latent_dim), label_N)
        both_NCHW = torch.cat([self.image_NCHW[part], fake_NCHW])
        real_N, fake_N = discriminator(both_NCHW, torch.cat([label_N, label_N])).split(batch_images)
        if turn.player == "generator":
            return objective.generator(fake_N, real_N)
        return objective.discriminator(real_N, fake_N)


def measure() -> Sequence[Row]:
    """Return the speed of both loops, in images a second."""
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder) / "digits"
        write_digits(shards)
        overrides = [f"data.shards={shards}", f"run_dir={folder}/run", "evaluate=null", "log.tensorboard=false"]
        recipe = load_recipe(RECIPE, overrides, Recipe)
        recipe.run_folder.mkdir()
        run = build(recipe, start(recipe.engine, recipe.timeout_minutes))
        bare = BareLoop(run)
        row = compare(f"digits-biggan, {torch.get_num_threads()} threads", lambda: play_steps(run), bare.play_steps)
        run.close()
    images = STEPS * recipe.batch_images
    return [Row({**row, "ours": images / row["ours"], "reference": images / row["reference"], "unit": "images/s"})]


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
