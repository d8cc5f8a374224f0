"""How long a run takes by its arithmetic alone, at an assumed utilisation of the GPU.

Left out: reduction of gradients over ranks, reading data, evaluations, samples, checkpoints and starts.
"""

from dataclasses import dataclass

from bigtrain.planning.gpus import Speed
from bigtrain.planning.measure import Measured
from bigtrain.planning.recipe import Planned
from bigtrain.recipe.layout import Layout

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Duration:
    """Time of a step on one GPU, and of all steps."""

    step_s: float
    num_steps: int
    batch_images: int

    @property
    def hours(self) -> float:
        """Time of the run."""
        return self.num_steps * self.step_s / SECONDS_PER_HOUR

    @property
    def images_per_s(self) -> float:
        """Images seen a second, over all GPUs."""
        return self.batch_images / self.step_s

    def starts(self, limit_s: float) -> int:
        """Return how many jobs of a time limit the run takes, each resuming the one before."""
        return max(1, -(-round(self.num_steps * self.step_s) // max(1, round(limit_s))))


def seconds(flop: int, reduced_flop: int, recipe: Planned, speed: Speed) -> float:
    """Return the time of so many FLOP, of which `reduced_flop` are in the recipe's precision and the others in float32
    (or TensorFloat-32 where the recipe lets it be): networks have float32 parts, and some turns are so as a whole."""
    reduced_s = reduced_flop / speed.flop_per_s(recipe.precision) if reduced_flop else 0.0
    return reduced_s + (flop - reduced_flop) / speed.flop_per_s(full_format(recipe))


def full_format(recipe: Planned) -> str:
    """Return the number format of what is not reduced."""
    return "tf32" if recipe.tf32 else "fp32"


def duration(measured: Measured, recipe: Planned, layout: Layout, speed: Speed) -> Duration:
    """Return the time of a recipe's steps on each rank of a layout.

    Raises:
        RecipeError: the GPU is not known.
        UsageError: the GPU has no units for a number format of the recipe.
    """
    micro_s = (cost.per_step * seconds(cost.flop, cost.reduced_flop, recipe, speed) for cost in measured.turns)
    return Duration(layout.accumulation * sum(micro_s), recipe.num_steps, recipe.batch_images)
