"""Door of training: `accelerate launch -m bigtrain.train RECIPE.yaml [key=value ...]`, or `bigtrain train` for one
process."""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bigtrain.cli import run_door, say
from bigtrain.engine.launch import Launch, start
from bigtrain.engine.lock import RunLock
from bigtrain.engine.preemption import die_with_parent, watch
from bigtrain.engine.trackers import check_installed
from bigtrain.recipe.errors import EXIT_DONE, EXIT_REQUEUE, BigtrainError
from bigtrain.recipe.load import load_recipe, recipe_text
from bigtrain.sampling.files import written_aside
from bigtrain.training.build import build, tracker_names
from bigtrain.training.loop import train
from bigtrain.training.run import Run
from bigtrain.training.schema import Recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe and the overrides."""
    parser.add_argument("recipe", help="a recipe file, or bigtrain:NAME for one that ships with the package")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the recipe's")


def run(arguments: argparse.Namespace) -> int:
    """Train; return 0 when the run is complete and 75 when it was stopped politely and saved."""
    die_with_parent()
    signals = watch()
    recipe = load_recipe(arguments.recipe, arguments.overrides, Recipe)
    check_installed(tracker_names(recipe))
    launch = start(recipe.engine, recipe.timeout_minutes)
    with RunLock(recipe.run_folder, launch.ranks):
        with _status_on_error(recipe.run_folder, launch):
            built = build(recipe, launch, signals)
            _write_recipe(recipe, launch)  # only now: a resume with another recipe is refused, and must not replace it
            is_complete = _train(built)
        state = "complete" if is_complete else "stopped: saved, start it again to go on"
        _write_status(recipe.run_folder, launch, state, built)
        launch.ranks.barrier()  # past the commit: whoever leaves first may take the others down
    launch.accelerator.end_training()
    return EXIT_DONE if is_complete else EXIT_REQUEUE


def _train(built: Run) -> bool:
    name, seen, is_main = built.recipe.name, built.progress.images_seen, built.launch.ranks.is_main
    if built.is_done:
        if is_main:
            say(f"{name} is complete: {seen:,} images seen; raise total_images to go on")
        built.close()
        return True
    _announce(built)
    try:
        is_complete = train(built)
    finally:
        built.close()
    if is_main:
        say(
            f"{'done' if is_complete else 'stopped and saved'} at {built.progress.images_seen:,} images; {built.folder}"
        )
    return is_complete


def _announce(built: Run) -> None:
    """Say and log where the run stands and how its batch is dealt."""
    progress, layout, device = built.progress, built.engine.layout, built.launch.device
    facts = {"world": layout.world, "micro_images": layout.micro_images, "accumulation": layout.accumulation}
    event = "resumed" if progress.steps else "start"
    built.log.event(event, progress, engine=built.recipe.engine, device=str(device), **facts)
    if built.launch.ranks.is_main:
        where = f"from {progress.images_seen:,} images" if progress.steps else "from the start"
        say(
            f"{built.recipe.name}: {where} to {built.recipe.total_images:,}; {layout.world} process(es) x "
            f"{layout.micro_images} images x {layout.accumulation} micro-batch(es) on {device}; log: {built.log.path}"
        )


def _write_recipe(recipe: Recipe, launch: Launch) -> None:
    if launch.ranks.is_main:
        with written_aside(recipe.run_folder / "recipe.yaml") as stream:
            stream.write(recipe_text(recipe).encode())


@contextlib.contextmanager
def _status_on_error(folder: Path, launch: Launch) -> Iterator[None]:
    """Say in RUN/status.json why a run ended: launchers return 1 whatever our exit status is."""
    try:
        yield
    except BigtrainError as error:
        _write_status(folder, launch, f"failed: {error}", exit_status=error.exit_status)
        raise


def _write_status(folder: Path, launch: Launch, state: str, built: Run | None = None, exit_status: int = 0) -> None:
    if not launch.ranks.is_main:
        return
    status: dict[str, Any] = {"state": state, "exit_status": exit_status}
    if built is not None:
        status |= {"images_seen": built.progress.images_seen, "step": built.progress.steps}
        status["exit_status"] = EXIT_DONE if built.is_done else EXIT_REQUEUE
    with written_aside(folder / "status.json") as stream:
        stream.write((json.dumps(status, indent=1) + "\n").encode())


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
