"""Train the run that a recipe describes, in one process, or go on with it."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe and the overrides."""
    from bigtrain.train import add_arguments as add_training_arguments

    add_training_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train, as `accelerate launch -m bigtrain.train` does for one process."""
    from bigtrain.train import run as run_training

    return run_training(arguments)
