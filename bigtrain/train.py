"""Door of training: `accelerate launch -m bigtrain.train RECIPE.yaml [key=value ...]`, or `bigtrain train` for one
process."""

import argparse
import sys
from collections.abc import Sequence

from bigtrain.cli import run_door, say
from bigtrain.engine.heartbeat.beats import Heartbeat
from bigtrain.engine.heartbeat.roll_call import Limits
from bigtrain.engine.processes.launch import has_launcher_here, start
from bigtrain.engine.processes.lock import RunLock
from bigtrain.engine.processes.preemption import die_with_parent, watch
from bigtrain.engine.processes.time_limit import watched_limit
from bigtrain.engine.trackers import check_installed
from bigtrain.recipe.errors import EXIT_DONE, EXIT_REQUEUE
from bigtrain.recipe.load import load_recipe, recipe_text
from bigtrain.sampling.files import written_aside
from bigtrain.training.build import build, tracker_names
from bigtrain.training.loop import train
from bigtrain.training.retention import sentence_of_best
from bigtrain.training.run import Run
from bigtrain.training.schema import Recipe
from bigtrain.training.starts import Starts
from bigtrain.training.status import RunStatus

STREAM_ORDER = (
    "a resume is not exact: shards are drawn anew at each start, so the order of the data cannot be reproduced, and "
    "images come again before others have come once"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe and the overrides."""
    parser.add_argument("recipe", help="a recipe file, or bigtrain:NAME for one that ships with the package")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the recipe's")


def run(arguments: argparse.Namespace) -> int:
    """Train; return 0 when the run is complete and 75 when it was stopped politely and saved."""
    if has_launcher_here():
        die_with_parent()
    signals = watch()  # until the process ends
    recipe = load_recipe(arguments.recipe, arguments.overrides, Recipe)
    check_installed(tracker_names(recipe))
    launch = start(recipe.engine, recipe.timeout_minutes, tuple(recipe.game.players))
    folder, ranks = recipe.run_folder, launch.ranks
    with (
        RunLock(folder, ranks),
        RunStatus(folder, ranks) as status,
        Starts(folder, ranks) as starts,
        Heartbeat(ranks, Limits.of(recipe.timeout_minutes), signals, status.lose),
    ):
        built = build(recipe, launch, signals)
        try:
            if built.is_complete:
                _say(built, f"is complete: {built.progress.images_seen:,} images seen; raise total_images to go on")
            else:
                margin_minutes = recipe.checkpoint.before_time_limit_minutes
                with watched_limit(margin_minutes, signals, launch.ranks, lambda: built.save_s):
                    _train(built)
        finally:
            built.close()
        status.end(built)
        starts.end(EXIT_DONE if built.is_complete else EXIT_REQUEUE)
        signals.ignore()
        ranks.barrier()  # past the commit: whoever leaves first may take the others down
    launch.leave()
    return EXIT_DONE if built.is_complete else EXIT_REQUEUE


def _train(built: Run) -> None:
    # Only now: a resume with another recipe was refused, and must not have replaced it.
    built.launch.ranks.on_main(lambda: _write_recipe(built.recipe))
    _announce(built)
    is_complete = train(built)
    _say(built, f"is {'done' if is_complete else 'stopped and saved'} at {built.progress.images_seen:,} images")
    best = sentence_of_best(built.folder, built.recipe) if is_complete and built.launch.ranks.is_main else None
    if best is not None:
        _say(built, best)


def _announce(built: Run) -> None:
    """Say and log where the run stands and how its batch is dealt."""
    progress, layout, device = built.progress, built.engine.layout, built.launch.device
    facts: dict[str, int | str] = {
        "world": layout.world,
        "micro_images": layout.micro_images,
        "accumulation": layout.accumulation,
    }
    if built.recipe.data.mode == "stream":
        facts |= {"data_mode": "stream", "data_order": STREAM_ORDER}
    event = "resumed" if progress.steps else "start"
    built.log.event(event, progress, engine=built.recipe.engine, device=str(device), **facts)
    where = f"from {progress.images_seen:,} images" if progress.steps else "from the start"
    _say(
        built,
        f"{where} to {built.recipe.total_images:,}; {layout.world} process(es) x {layout.micro_images} images x "
        f"{layout.accumulation} micro-batch(es) on {device}; log: {built.log.path}",
    )
    if built.recipe.data.mode == "stream":
        _say(built, f"data.mode: stream; {STREAM_ORDER}")
    if built.recipe.engine == "ddp" and layout.world == 1:
        _say(built, "engine: ddp, and the launcher started one process; see the README where more were asked for")


def _say(built: Run, words: str) -> None:
    if built.launch.ranks.is_main:
        say(f"{built.recipe.name}: {words}")


def _write_recipe(recipe: Recipe) -> None:
    with written_aside(recipe.run_folder / "recipe.yaml") as stream:
        stream.write(recipe_text(recipe).encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the door with a command line."""
    parser = argparse.ArgumentParser(
        prog="bigtrain.train", description="Train the run that a recipe describes, or go on with it."
    )
    add_arguments(parser)
    parsed = parser.parse_intermixed_args(arguments)
    return run_door(lambda: run(parsed))


if __name__ == "__main__":
    sys.exit(main())
