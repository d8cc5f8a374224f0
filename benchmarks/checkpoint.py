"""How long the step loop waits for a checkpoint of a pair of 70 M parameters in all (0.97 GB with Adam and an average).

    python -m benchmarks.checkpoint [--json FILE]

Ours: what `training/saving.py` makes the loop wait when a save begins; hashing and writing go on beside the steps. The
reference is the save that the loop waits for until it is committed. Steps are tiny (2 images), so that nothing but the
checkpoint is large. The folder is a temporary one: TMPDIR chooses the disk.
"""

import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.digits import RECIPE
from benchmarks.timing import Row, compare, main, time_s
from bigtrain.data.digits import write_digits
from bigtrain.engine.checkpoints.staging import Staging
from bigtrain.engine.processes.launch import start
from bigtrain.recipe.load import load_recipe
from bigtrain.training import saving
from bigtrain.training.build import build
from bigtrain.training.run import Run
from bigtrain.training.schema import Recipe
from bigtrain.training.state import tensors_of

WIDTH = 188  # BigGAN at 32 px: 33.5 M and 36.2 M parameters
BATCH_IMAGES = 2
REPEATS = 5


@contextmanager
def large_run() -> Iterator[Run]:
    """Yield a run whose optimizers have state, and whose memory for saves is taken."""
    with tempfile.TemporaryDirectory() as folder:
        write_digits(Path(folder) / "digits")
        overrides = [
            f"data.shards={folder}/digits", f"run_dir={folder}/run", "evaluate=null", "log.tensorboard=false",
            "data.num_workers=0", f"batch_images={BATCH_IMAGES}", f"batchnorm_images={BATCH_IMAGES}",
            f"game.generator.width={WIDTH}", f"game.discriminator.width={WIDTH}",
        ]  # fmt: skip
        recipe = load_recipe(RECIPE, overrides, Recipe)
        recipe.run_folder.mkdir()
        run = build(recipe, start(recipe.engine, recipe.timeout_minutes))
        play_step(run)
        saving.reserve(run)
        yield run
        run.close()


def play_step(run: Run) -> None:
    """Play one step of the run, without hooks."""
    for number, turn in enumerate(run.game.turns(run.progress)):
        run.play(number, turn)
    run.end_step()


def move_on(run: Run) -> None:
    """Give the next checkpoint another name; nothing that is measured is in flight or unread after it."""
    saving.finish(run)
    run.settle()
    run.progress = replace(run.progress, images_seen=run.progress.images_seen + BATCH_IMAGES)


def measure() -> Sequence[Row]:
    """Return what the loop waits for, how long a save takes, and how much it slows the steps beside it."""
    with large_run() as run:
        gigabytes = sum(tensor.nbytes for tensor in tensors_of(run).values()) / 1e9
        stalls, saves, alone, beside = [], [], [], []
        for _ in range(REPEATS):
            move_on(run)
            saves.append(time_s(lambda: saving.save(run)))
            move_on(run)
            stalls.append(time_s(lambda: saving.begin(run)))
            beside.append(time_s(lambda: play_step(run)))
            saving.finish(run)
            alone.append(time_s(lambda: play_step(run)))
        kept = Staging()
        fresh = compare(
            f"copy of {gigabytes:.2f} GB: kept memory / fresh",
            lambda: kept.copy(tensors_of(run)),
            lambda: Staging().copy(tensors_of(run)),
            REPEATS,
        )
    return [
        _row(f"wait for a checkpoint of {gigabytes:.2f} GB: begun / until committed", stalls, saves),
        fresh,
        _row("a small step: beside a save / alone", beside, alone),
    ]


def _row(name: str, ours: Sequence[float], reference: Sequence[float]) -> Row:
    ours_s, reference_s = statistics.median(ours), statistics.median(reference)
    return Row(name=name, ours=ours_s, reference=reference_s, ratio=reference_s / ours_s, unit="s")


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
