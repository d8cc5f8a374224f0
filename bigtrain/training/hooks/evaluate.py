"""Periodic evaluation: images of the averaged generator against the real ones, one JSON file each, figures into the
log."""

import json
from collections.abc import Sequence

import torch
from torch import Tensor

from bigtrain.draws import seed_of
from bigtrain.engine import faults
from bigtrain.engine.heartbeat import whereabouts
from bigtrain.metrics.evaluation import Evaluation, build_evaluator
from bigtrain.metrics.features import RealImages
from bigtrain.metrics.settings import EvaluationSettings
from bigtrain.recipe.errors import EXIT_REQUEUE, BigtrainError
from bigtrain.sampling.files import written_aside
from bigtrain.sampling.truncation import Truncation
from bigtrain.training.health.alarms import judge
from bigtrain.training.owed import evaluation_due, owe_evaluation
from bigtrain.training.run import Run
from bigtrain.training.sampler import Sampler, StandingSettings


class Evaluate:
    """Compares every moving average with the real images; the first one's figures go by their plain names."""

    def __init__(self, run: Run, settings: EvaluationSettings) -> None:
        """Train or load the extractor and compute or load the real statistics, before the first step."""
        self._settings = settings
        cache = run.folder.parent / "cache"
        self._evaluator = build_evaluator(settings, real_images(run), cache, run.launch.device, run.launch.ranks)

    def due(self, run: Run) -> bool:
        """When `evaluate.every_images` were crossed, and at the end."""
        return evaluation_due(run)

    def run(self, run: Run) -> None:
        """Evaluate and record; every rank generates its share. A stop ends it with nothing written: it is owed then."""
        run.settle()
        try:
            evaluations = {name: self._evaluate(run, name) for name in run.averages.averages}
        except BigtrainError as error:
            if error.exit_status != EXIT_REQUEUE:
                raise
            owe_evaluation(run)
            return
        run.owes_evaluation = False
        for number, (name, evaluation) in enumerate(evaluations.items()):
            self._record(run, name, evaluation, is_first=number == 0)

    def _evaluate(self, run: Run, average: str) -> Evaluation:
        settings = self._settings
        networks = run.averages.averages[average].ready_networks()
        sampler = Sampler(run.game, networks, run.launch.device, settings.batch_images)
        sampler.restand(
            Truncation(), StandingSettings(settings.standing_batches, settings.standing_images, settings.seed)
        )
        seed = seed_of(settings.seed, "evaluation")

        def generate(index_N: Tensor) -> Tensor:  # noqa: N803 (axis)
            whereabouts.note("evaluation")
            faults.reach("evaluate")
            run.preemption.give_way()
            return torch.cat(list(sampler.images(index_N, None, Truncation(), seed)))

        law = getattr(run.recipe.game, "fake_labels", "none") if run.facts.image.num_classes else "none"
        return self._evaluator.evaluate(generate, {"truncation": "none", "average": average, "label_law": law})

    def _record(self, run: Run, average: str, evaluation: Evaluation, is_first: bool) -> None:
        name = f"{run.progress.images_seen:012d}-{evaluation.protocol_name}.json"

        def write() -> None:
            with written_aside(run.folder / "evaluations" / name) as stream:
                record = {
                    "images_seen": run.progress.images_seen,
                    "figures": evaluation.figures,
                    "protocol": evaluation.protocol,
                }
                stream.write((json.dumps(record, indent=1) + "\n").encode())

        run.write_aside("an evaluation", write)
        run.log.event(
            "evaluation", run.progress, average=average, protocol=evaluation.protocol_name, **evaluation.figures
        )
        if is_first:
            run.project(evaluation.figures)
            distance = next(iter(evaluation.figures.values()))  # the first figure is the Frechet distance
            judge(run, "evaluation", {f"evaluation/{evaluation.protocol_name}": distance})


def real_images(run: Run) -> RealImages:
    """Return the training part as metrics take it: images and labels by place; a stop ends long work on them."""
    shards = run.shards
    numbers = shards.numbers()

    def between() -> None:
        whereabouts.note("preparing the evaluation")
        run.preemption.give_way()

    def load(places: Sequence[int]) -> tuple[Tensor, Tensor]:
        between()
        batch = shards.load(numbers[list(places)])
        return batch.image_NCHW, batch.label_N

    return RealImages(shards.spec, shards.num_samples, shards.content_hash, load, between)
