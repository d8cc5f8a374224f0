"""One turn of a run again, to find where it first holds a value that is not finite.

Order and draws are functions of the position, so any step can be reached: from the newest checkpoint at or before it
the run is trained forward in one process, with the same global batches, and nothing is written. Sums over ranks are in
another order than in a run of several, and per-pixel noise is drawn by layout, so the weights of a step that is far
from its checkpoint agree to rounding and what training makes of it, not bit for bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bigtrain.engine.checkpoints.files import Checkpoint, committed, read_checkpoint
from bigtrain.engine.checkpoints.names import folder_name
from bigtrain.engine.culprit import Culprits, watched
from bigtrain.engine.processes.launch import start
from bigtrain.recipe.errors import CheckpointError, UsageError
from bigtrain.recipe.load import load_recipe
from bigtrain.training.build import assemble
from bigtrain.training.health.rollback import take_up_rollbacks
from bigtrain.training.run import Run
from bigtrain.training.schema import Recipe
from bigtrain.training.state import restore

ALONE = ("engine=plain", "compile=none", "data.num_workers=0")  # how a replay is played
PATIENT = "watchdog={skipped_in_a_row: null, skipped_of_1000: null}"  # it goes through what stopped the run


@dataclass(frozen=True)
class Wanted:
    """Which turn to replay: as an `alarm` line of the log names it."""

    at_images: int
    turn: str
    checkpoint_images: int | None = None
    salt: int | None = None


@dataclass(frozen=True)
class Replayed:
    """What a replayed turn did."""

    turn: str
    step: int
    checkpoint_images: int
    forward_steps: int
    salt: int
    figures: Mapping[str, float]
    stepped: bool
    culprits: Culprits
    samples: tuple[str, ...]
    """Where the images lie that were not finite."""


def replay(folder: Path, wanted: Wanted, overrides: Sequence[str] = ()) -> Replayed:
    """Play a turn of the run in `folder` again and return what it did; the folder is left as it is.

    Raises:
        UsageError: the run has no such step or turn, or a launcher started several processes.
        CheckpointError: there is no checkpoint at or before the step.
    """
    if not (folder / "recipe.yaml").is_file():
        raise UsageError(f"{folder} is no run folder: it has no recipe.yaml; name a folder such as runs/NAME")
    recipe = load_recipe(folder / "recipe.yaml", [*ALONE, PATIENT, *overrides, f"run_dir={folder}"], Recipe)
    if recipe.data.mode == "stream":
        raise UsageError(
            f"{folder} was trained with data.mode: stream, which never gives the same images again; only runs on "
            "indexed shards can be replayed"
        )
    if wanted.at_images < 0:
        raise UsageError(f"--at {wanted.at_images}: a step begins after 0 images or more; write what the alarm says")
    checkpoint = _checkpoint(folder / "checkpoints", wanted)
    run = assemble(recipe, start(recipe.engine, recipe.timeout_minutes), writes=False)
    try:
        restore(run, checkpoint)
        take_up_rollbacks(run)
        if wanted.salt is not None:
            run.progress = replace(run.progress, salt=wanted.salt)
        return _play(run, wanted, checkpoint)
    finally:
        run.close()


def _checkpoint(folder: Path, wanted: Wanted) -> Checkpoint:
    saved = committed(folder)
    if wanted.checkpoint_images is not None:
        saved = [images for images in saved if images == wanted.checkpoint_images]
    fitting = [images for images in saved if images <= wanted.at_images]
    if not fitting:
        listed = ", ".join(map(str, committed(folder))) or "none"
        asked = "" if wanted.checkpoint_images is None else f"of {wanted.checkpoint_images} images "
        raise CheckpointError(
            f"{folder} has no checkpoint {asked}at or before {wanted.at_images} images; it has {listed}; "
            "name a later step or one of these, or put a copy back"
        )
    for images in fitting:
        checkpoint = read_checkpoint(folder / folder_name(images))
        if wanted.salt is None or checkpoint.record["progress"]["salt"] <= wanted.salt:
            return checkpoint
    raise CheckpointError(
        f"{folder} has no checkpoint at or before {wanted.at_images} images from when the salt was {wanted.salt}: the "
        "run has rolled back since; name a later step, or leave --salt out"
    )


def _play(run: Run, wanted: Wanted, checkpoint: Checkpoint) -> Replayed:
    batch_images = run.recipe.batch_images
    if (wanted.at_images - run.progress.images_seen) % batch_images:
        near = wanted.at_images - (wanted.at_images - run.progress.images_seen) % batch_images
        raise UsageError(
            f"--at {wanted.at_images}: no step of {batch_images} images starts there; the one before: {near}"
        )
    first_step = run.progress.steps
    while run.progress.images_seen < wanted.at_images:
        for number, turn in enumerate(run.game.turns(run.progress)):
            run.play(number, turn)
        run.end_step()
    run.settle()
    turns = run.game.turns(run.progress)
    name = wanted.turn if "/" in wanted.turn else f"{wanted.turn}/main"
    if name not in [turn.name for turn in turns]:
        raise UsageError(
            f"--turn {wanted.turn}: step {run.progress.steps} has no such turn; it has "
            f"{', '.join(dict.fromkeys(turn.name for turn in turns))}"
        )
    salt = run.progress.salt
    number = [turn.name for turn in turns].index(name)
    for earlier, turn in enumerate(turns[:number]):
        run.play(earlier, turn)
    with watched(run.engine, turns[number].player) as culprits:
        run.play(number, turns[number])
    outcome = run.unread[-1].played.read()
    places = tuple(f"sample {sample}: {run.shards.place(sample)}" for sample in culprits.samples)
    return Replayed(
        name, run.progress.steps, checkpoint.images, run.progress.steps - first_step, salt, outcome.figures,
        outcome.stepped, culprits, places,
    )  # fmt: skip
