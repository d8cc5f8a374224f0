"""Small real runs for tests: digits, the shipped recipe at toy width, in forked ranks."""

import argparse
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import bigtrain.train as door
from bigtrain.engine.processes.launch import start
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.load import load_recipe
from bigtrain.recipe.progress import Progress
from bigtrain.training.build import build
from bigtrain.training.log import comparable, read_log
from bigtrain.training.loop import train
from bigtrain.training.run import Run
from bigtrain.training.schema import Recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "digits-biggan.yaml"
BATCH_IMAGES = 16
TOY = (
    "game.generator={kind: biggan, width: 4, latent_dim: 16, shared_dim: 8, attention_sides: []}",
    "game.discriminator={kind: biggan, width: 4, attention_sides: []}",
    f"batch_images={BATCH_IMAGES}",
    "batchnorm_images=8",
    "total_images=160",
    "log={every_images: 48, tensorboard: false}",
    "samples.every_images=0",
    "checkpoint.every_images=64",
    "data.num_workers=0",
    "data.holdout=5%",
    "evaluate=null",
)


@dataclass
class StopAfter:
    """A hook that sends this process a signal after some step."""

    steps: int
    signum: int = signal.SIGTERM

    def due(self, run: Run) -> bool:
        return run.progress.steps == self.steps

    def run(self, run: Run) -> None:
        os.kill(os.getpid(), self.signum)


def toy_overrides(shards: Path, run_dir: Path, *more: str) -> list[str]:
    """Return the overrides of a toy run; later ones win."""
    return [*TOY, f"data.shards={shards}", f"run_dir={run_dir}", *more]


def toy_run(ranks: Ranks, overrides: list[str], engine: str = "ddp") -> Run:
    """Build a toy run under an engine, or plain where it is alone; resumed if it was saved."""
    recipe = load_recipe(RECIPE, [*overrides, f"engine={'plain' if ranks.world == 1 else engine}"], Recipe)
    recipe.run_folder.mkdir(parents=True, exist_ok=True)
    return build(recipe, start(recipe.engine, 1, tuple(recipe.game.players)))


def play(ranks: Ranks, overrides: list[str], stop_after_steps: int | None = None, engine: str = "ddp") -> Progress:
    """Build and train a toy run, stopped by a signal to the last rank after some step; return where it stands."""
    run = toy_run(ranks, overrides, engine)
    if stop_after_steps is not None and ranks.rank == ranks.world - 1:
        run.hooks.append(StopAfter(stop_after_steps))
    train(run)
    run.close()
    return run.progress


def enter(ranks: Ranks, overrides: list[str]) -> int:
    """Go through the door of training as the command line does; return its status."""
    return door.main([str(RECIPE), *overrides])


def final_state(run_dir: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the newest checkpoint's tensors, and its record without times and versions."""
    from bigtrain.engine.checkpoints.checkpoint import read_checkpoint
    from bigtrain.engine.checkpoints.files import newest_complete

    folder = newest_complete(run_dir / "checkpoints")
    assert folder is not None
    checkpoint = read_checkpoint(folder)
    record = {key: checkpoint.record[key] for key in ("progress", "means", "scalers", "watch", "damage")}
    return dict(checkpoint.tensors), record


def status_lines(run_dir: Path) -> list[dict[str, Any]]:
    """Return the status lines of a run's log without times, rates and memory."""
    lines = [event for event in read_log(run_dir / "log.jsonl") if event["event"] == "status"]
    return [comparable(line) for line in lines]


def namespace(**values: Any) -> argparse.Namespace:
    """Return parsed arguments of a verb."""
    return argparse.Namespace(**values)


def as_json(path: Path) -> Any:
    """Return a JSON file's value."""
    return json.loads(path.read_text())
