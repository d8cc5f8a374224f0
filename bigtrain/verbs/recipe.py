"""Print a recipe as it will be run, with what follows from it: steps, micro-batches, parameters."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bigtrain.cli import say
from bigtrain.recipe.errors import EXIT_DONE, UsageError
from bigtrain.recipe.load import load_recipe, recipe_text

if TYPE_CHECKING:
    from bigtrain.training.schema import Recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe, the overrides, and the number of processes to derive figures for."""
    parser.add_argument("recipe", help="a recipe file, or bigtrain:NAME for one that ships with the package")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the recipe's")
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="derive figures for N processes (default 1)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the resolved recipe, which is itself a recipe, and derived figures as comments below it; return 0."""
    if arguments.processes < 1:
        raise UsageError(f"--processes {arguments.processes}: a run has at least one process; write 1 or more")
    from bigtrain.training.schema import Recipe  # torch takes seconds to import; a wrong command line should not

    recipe = load_recipe(arguments.recipe, arguments.overrides, Recipe)
    figures = list(derived(recipe, arguments.processes))  # before anything is printed: it can fail
    say(recipe_text(recipe), end="")
    for figure in figures:
        say(f"# {figure}")
    return EXIT_DONE


def derived(recipe: "Recipe", num_processes: int) -> Iterator[str]:
    """Yield one line for each figure that follows from the recipe on so many processes.

    Raises:
        RecipeError: the networks do not fit the images, or the batch does not fit the processes.
    """
    import torch

    from bigtrain.games.base import DataFacts
    from bigtrain.training.build import build_game
    from bigtrain.training.layout import choose_layout

    layout = choose_layout(recipe.dealing, rank=0, world=num_processes)
    with torch.device("meta"):  # shapes only: no memory, no time for initial weights
        game = build_game(recipe, DataFacts(recipe.image.spec, _equal_counts(recipe)))
    yield f"derived for {num_processes} process{'es' if num_processes > 1 else ''}:"
    yield f"  micro-batch: {layout.micro_images} images, accumulation {layout.accumulation}"
    yield f"  steps: {recipe.num_steps:,} of {recipe.batch_images:,} images"
    for name, network in game.networks.items():
        yield f"  parameters of {name}: {sum(weight.numel() for weight in network.parameters()):,}"


def _equal_counts(recipe: "Recipe") -> tuple[int, ...] | None:
    # The shards may not be here; what is derived does not depend on how many images each class has.
    return (1,) * recipe.image.num_classes or None
