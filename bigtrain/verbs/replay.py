"""Play one turn of a run again and name the first module whose output is not finite."""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

from bigtrain.cli import say
from bigtrain.recipe.errors import EXIT_DONE, DivergenceError
from bigtrain.training.replay import Replayed, Wanted, replay

LISTED = 8  # modules, parameters and samples that are listed at most


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which turn of which run."""
    parser.add_argument("run", type=Path, help="run folder; nothing is written to it")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that replace the run's, such as data.shards=DIR"
    )
    parser.add_argument(
        "--at", type=int, required=True, metavar="IMAGES", help="images seen when the step began, as the alarm says"
    )
    parser.add_argument("--turn", required=True, help="such as discriminator, discriminator/r1, generator")
    parser.add_argument(
        "--checkpoint", type=int, metavar="IMAGES", help="which checkpoint to start from (the newest before the step)"
    )
    parser.add_argument(
        "--salt", type=int, help="salt of the draws, as the alarm says (default: that of the run's last rollback)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Replay and print; return 0 when all is finite and 5 when something is not."""
    wanted = Wanted(arguments.at, arguments.turn, arguments.checkpoint, arguments.salt)
    replayed = replay(arguments.run, wanted, arguments.overrides)
    for name, value in rows(replayed):
        say(f"{name:<28} {value}".rstrip())
    return EXIT_DONE if replayed.stepped and not replayed.culprits.any else DivergenceError.exit_status


def rows(replayed: Replayed) -> Iterator[tuple[str, str]]:
    """Yield what is printed, one row each."""
    start = f"checkpoint {replayed.checkpoint_images}, {replayed.forward_steps} step(s) trained forward from there"
    yield replayed.turn, f"step {replayed.step}, salt {replayed.salt}; {start}"
    for name, value in replayed.figures.items():
        yield name, f"{value:.6g}" + ("" if math.isfinite(value) else "   <- not finite")
    found = replayed.culprits
    yield from _list("weights before the turn", found.state)
    yield from _list("real images", list(replayed.samples))
    yield from _list("first module", found.modules)
    yield from _list("first gradient", found.gradients)
    if replayed.stepped and not found.any:
        yield "all finite", "weights, images, outputs of all modules, losses and gradients"
    elif not found.any:
        yield "between modules", "no module's output is at fault: look at the loss itself"


def _list(title: str, names: list[str]) -> Iterator[tuple[str, str]]:
    for place, name in enumerate(names[:LISTED]):
        yield (title if place == 0 else ""), f"{name} is not finite" if place == 0 else f"  then {name}"
    if len(names) > LISTED:
        yield "", f"  and {len(names) - LISTED} more"
