"""An evaluation from the question to its figures: opens what is judged and what it is judged against, on all ranks."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from bigtrain.engine.processes.launch import Launch
from bigtrain.evaluation.judge import Judgement, judge
from bigtrain.evaluation.options import Options
from bigtrain.evaluation.reference import open_real
from bigtrain.evaluation.subjects import Subject, open_subjects
from bigtrain.metrics.evaluation import Evaluator, build_evaluator
from bigtrain.metrics.features import RealImages
from bigtrain.metrics.settings import EvaluationSettings

Load = Callable[[Sequence[int]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Question:
    """A subject and all that it takes to judge it."""

    subject: Subject
    settings: EvaluationSettings
    evaluator: Evaluator


class Session:
    """Evaluations that share processes, options and, where they can, real statistics."""

    def __init__(self, options: Options, launch: Launch) -> None:
        self.options, self.launch = options, launch
        self.between: Callable[[], None] = lambda: None
        """Called between parts of long work on real images; may raise to end it."""
        self._evaluators: dict[tuple[str, str], Evaluator] = {}

    def questions(self, what: str) -> Iterator[Question]:
        """Yield what a path holds with what it takes to judge it; all ranks together.

        Raises:
            BigtrainError: of the kind that says what is wrong with the path, the real images, or the weights.
        """
        choice, launch = self.options.choice, self.launch
        for subject in launch.ranks.together(lambda: list(open_subjects(what, choice, launch.device))):
            yield self.ask(subject)

    def ask(self, subject: Subject) -> Question:
        """Return a subject with what it takes to judge it; all ranks together.

        Raises:
            BigtrainError: of the kind that says what is wrong with the options, the real images, or the weights.
        """
        settings = self.options.settings(subject)
        return Question(subject, settings, self._evaluator(subject, settings))

    def judge(self, question: Question, moved: Callable[[int], object] = lambda num_images: None) -> Judgement:
        """Return the figures of a question; all ranks together get the same."""
        options = self.options
        drawing = options.drawing(question.settings)
        found = judge(question.subject, question.evaluator, drawing, options.num_seeds, moved)
        if options.protocol is not None:
            found.protocol["named"] = options.protocol.record()
        return found

    def _evaluator(self, subject: Subject, settings: EvaluationSettings) -> Evaluator:
        """Return the evaluator of these settings and real images, the one from before where there was one."""
        ranks = self.launch.ranks
        real = open_real(self.options.real, self.options.split, subject, ranks)
        if isinstance(real, RealImages):
            real = replace(real, load=self._with_between(real.load), between=lambda: self.between())
        key = (settings.model_dump_json(), real.content_hash)
        if key not in self._evaluators:
            cache = self.options.cache or default_cache(subject)
            self._evaluators[key] = build_evaluator(
                settings, real, cache, self.launch.device, ranks, self.options.weights
            )
        return self._evaluators[key]

    def _with_between(self, load: Load) -> Load:
        def loaded(numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
            self.between()
            return load(numbers)

        return loaded


def default_cache(subject: Subject) -> Path:
    """Return where trained extractors and real statistics are kept: beside a run where training keeps them, else in the
    user's own cache."""
    if subject.run_folder is not None:
        return subject.run_folder.resolve().parent / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bigtrain"
