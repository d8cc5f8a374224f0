"""One evaluation of one moving average, alike while a run trains and beside it, and its file."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bigtrain.draws import seed_of
from bigtrain.metrics.evaluation import Evaluation, Evaluator
from bigtrain.metrics.records import EvaluationRecord
from bigtrain.sampling.files import written_aside
from bigtrain.sampling.truncation import Truncation
from bigtrain.training.sampler import Sampler, StandingSettings
from bigtrain.training.schema import Recipe


def sampling_facts(recipe: Recipe, average: str) -> dict[str, Any]:
    """Return what a protocol says of sampling: as it was trained, without truncation, from one average."""
    law = getattr(recipe.game, "fake_labels", "none") if recipe.image.num_classes else "none"
    return {"truncation": "none", "average": average, "label_law": law}


def evaluate_average(
    evaluator: Evaluator, sampler: Sampler, sampling: Mapping[str, Any], between: Callable[[], None]
) -> Evaluation:
    """Judge the networks of a sampler; all ranks together.

    Args:
        evaluator: in whose features, against which images.
        sampler: the averaged networks; BatchNorm's statistics are recomputed.
        sampling: as `sampling_facts` says it.
        between: called before each batch; may raise to end the work.
    """
    settings = evaluator.settings
    sampler.restand(Truncation(), StandingSettings(settings.standing_batches, settings.standing_images, settings.seed))
    seed = seed_of(settings.seed, "evaluation")

    def generate(index_N: Tensor) -> Tensor:  # noqa: N803 (axis)
        between()
        return torch.cat(list(sampler.images(index_N, None, Truncation(), seed)))

    labels = (lambda index_N: sampler.labels(index_N, seed)) if evaluator.tells_classes else None
    return evaluator.evaluate(generate, sampling, labels)


def write_record(record: EvaluationRecord) -> None:
    """Write an evaluation aside and rename it to its path.

    Raises:
        OSError: the disk refuses; what was there is as it was.
    """
    with written_aside(record.path) as stream:
        stream.write(record.render())
