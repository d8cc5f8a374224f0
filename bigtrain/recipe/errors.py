"""The errors a user, a file or a cluster can cause, each with the exit status that scripts rely on
(docs/architecture.md).

Every message is one sentence: what is wrong, which value, where, and the way out.
"""

from collections.abc import Sequence

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: saved, and asks to be started again


class BigtrainError(Exception):
    """Something outside the code is wrong; the door prints the sentence and leaves with `exit_status`."""

    exit_status = EXIT_BUG


class UsageError(BigtrainError):
    """A command line asks for something that cannot be done."""

    exit_status = 2


class RecipeError(UsageError):
    """A recipe breaks rules; `problems` holds one sentence for each of them."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class WeightsError(UsageError):
    """A weight file is missing, damaged or of another network."""


class FolderLockedError(BigtrainError):
    """Another process writes this run folder."""

    exit_status = 3


class CheckpointError(BigtrainError):
    """No checkpoint of a run can be used, or one cannot be written."""

    exit_status = 4


class DivergenceError(BigtrainError):
    """Training produced non-finite values and did not recover."""

    exit_status = 5


class DataError(BigtrainError):
    """A shard, index, image or label is missing, damaged or inconsistent."""

    exit_status = 6


class StoppedError(BigtrainError):
    """A stop was asked for in the middle of work that can be given up: the run saves and asks to be started again."""

    exit_status = EXIT_REQUEUE


class NoProgressError(BigtrainError):
    """A job was restarted again and again without coming any further."""

    exit_status = 7


class RanksDriftedError(BigtrainError):
    """Ranks that must hold equal state do not."""

    exit_status = 8


class RankLostError(BigtrainError):
    """A rank died or did not answer in time."""

    exit_status = 9


class SavesFailedError(BigtrainError):
    """Several checkpoints in a row could not be written."""

    exit_status = 10
