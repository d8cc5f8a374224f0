"""One action in a thread of its own, whose end and outcome another thread asks for."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Background(Generic[Result]):
    """Starts at once. The thread is a daemon: a process that must end does not wait for it."""

    def __init__(self, action: Callable[[], Result], name: str) -> None:
        self.name = name
        self.failure: BaseException | None = None
        """What the action raised; None while it runs."""
        self._action = action
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._action()
        except BaseException as error:  # raised again by whoever asks for the result
            self.failure = error

    @property
    def is_over(self) -> bool:
        """Whether the action has ended, well or not."""
        return not self._thread.is_alive()

    def wait(self, limit_s: float | None = None) -> bool:
        """Wait until the action has ended, or for `limit_s`; return whether it has."""
        self._thread.join(limit_s)
        return self.is_over

    def result(self) -> Result:
        """Wait, and return what the action returned or raise what it raised."""
        self.wait()
        if self.failure is not None:
            raise self.failure
        return self._result
