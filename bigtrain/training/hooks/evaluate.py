"""Periodic evaluation: images of the averaged generator against the real ones, one JSON file each, figures into the
log."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from bigtrain.data.shards import ShardSet
from bigtrain.engine import faults
from bigtrain.engine.heartbeat import whereabouts
from bigtrain.metrics.evaluation import Evaluation, build_evaluator
from bigtrain.metrics.features import RealImages
from bigtrain.metrics.figures import frechet_name
from bigtrain.metrics.records import EvaluationRecord, best_name, record_path
from bigtrain.metrics.settings import EvaluationSettings
from bigtrain.recipe.errors import EXIT_REQUEUE, BigtrainError
from bigtrain.training.health.alarms import judge
from bigtrain.training.judging import evaluate_average, sampling_facts, write_record
from bigtrain.training.owed import evaluation_due, owe_evaluation
from bigtrain.training.retention import ranking_figure
from bigtrain.training.run import Run
from bigtrain.training.sampler import Sampler


class Evaluate:
    """Compares every moving average with the real images; the first one's figures go by their plain names."""

    def __init__(self, run: Run, settings: EvaluationSettings) -> None:
        """Train or load the extractor and compute or load the real statistics, before the first step."""
        self._settings, self._distance = settings, frechet_name(settings.measured[0].extractor)
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
        best = self._best(run, {name: evaluation.figures for name, evaluation in evaluations.items()})
        for name, evaluation in evaluations.items():
            self._record(run, name, evaluation, best)
        self._watch(run, next(iter(evaluations.values())))

    def _evaluate(self, run: Run, average: str) -> Evaluation:
        networks = run.averages.averages[average].ready_networks()
        sampler = Sampler(run.game, networks, run.launch.device, self._settings.batch_images)

        def between() -> None:
            whereabouts.note("evaluation")
            faults.reach("evaluate")
            run.preemption.give_way()

        return evaluate_average(self._evaluator, sampler, sampling_facts(run.recipe, average), between)

    def _record(self, run: Run, average: str, evaluation: Evaluation, best: str | None) -> None:
        record = EvaluationRecord(
            path=record_path(run.folder, run.progress.images_seen, evaluation.protocol_name),
            images_seen=run.progress.images_seen,
            figures=evaluation.figures,
            protocol=evaluation.protocol,
            average=average,
            salt=run.progress.salt,
            best_average=best,
            details=evaluation.details,
        )
        run.write_aside("an evaluation", lambda: write_record(record))
        named = {} if best is None else {"best_average": best}
        facts = {"average": average, "protocol": evaluation.protocol_name, **named}
        run.log.event("evaluation", run.progress, **facts, **evaluation.figures)

    def _best(self, run: Run, figures: Mapping[str, Mapping[str, float]]) -> str | None:
        """Return which of several averages is best, by the figure that ranks checkpoints or else by the distance."""
        if len(figures) == 1:
            return None
        return best_name(figures, ranking_figure(run.recipe) or "") or best_name(figures, self._distance)

    def _watch(self, run: Run, first: Evaluation) -> None:
        """Send the first average's figures to the trackers, and have the watchdog judge its Frechet distance."""
        run.project(first.figures)
        judge(run, "evaluation", {f"evaluation/{first.protocol_name}": first.figures[self._distance]})


def real_images(run: Run) -> RealImages:
    """Return the training part as metrics take it: images and labels by place; a stop ends long work on them."""
    shards = run.shards
    assert isinstance(shards, ShardSet), "recipes that stream refuse `evaluate`"
    numbers = shards.numbers()

    def between() -> None:
        whereabouts.note("preparing the evaluation")
        run.preemption.give_way()

    def load(places: Sequence[int]) -> tuple[Tensor, Tensor]:
        between()
        batch = shards.load(numbers[list(places)])
        return batch.image_NCHW, batch.label_N

    return RealImages(shards.spec, shards.num_samples, shards.content_hash, load, between)
