"""What a watcher judges by: an evaluation's session, whose options by default are the run's own `evaluate`
section."""

from collections.abc import Callable

from bigtrain.engine.precision import set_backend_precision
from bigtrain.evaluation.judge import Judgement, sampling_of
from bigtrain.evaluation.session import Question, Session
from bigtrain.evaluation.subjects import Generator
from bigtrain.training.loaded import LoadedModel


class WatchJudge:
    """Judges models of one run under one protocol; real images and extractors are read once."""

    def __init__(self, session: Session, model: LoadedModel) -> None:
        """Open the real images and the extractors; all ranks together.

        Args:
            session: with the options and processes.
            model: any of the run.

        Raises:
            BigtrainError: of the kind that says what is wrong with options, real images or weights.
        """
        set_backend_precision(model.recipe.tf32, model.recipe.deterministic)  # as the training generates
        self._session = session
        self._first = session.ask(self._subject(model))

    def protocol_name(self, model: LoadedModel) -> str:
        """Return under which name this model's figures are kept."""
        options, evaluator = self._session.options, self._first.evaluator
        drawing = options.drawing(self._first.settings)
        return evaluator.protocol_name(
            evaluator.protocol(sampling_of(self._subject(model), drawing, options.num_seeds))
        )

    def judge(self, model: LoadedModel, between: Callable[[], None]) -> Judgement:
        """Return the figures; `between` is called after every batch and may raise to end the work."""
        question = Question(self._subject(model), self._first.settings, self._first.evaluator)
        return self._session.judge(question, lambda num_images: between())

    def _subject(self, model: LoadedModel) -> Generator:
        return Generator(model.path, model, self._session.launch.device)
