"""Where this process's main thread is: noted as it goes, read by the heartbeat that tells the other ranks.

A note costs a microsecond. Ranks do the same things in the same order, so the one with the fewest moves in a step is
the one that the others wait for.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass(frozen=True, order=True)
class Place:
    """A place in a run; of two, the larger is further on."""

    steps: int = 0
    """Steps that the run had made."""
    moves: int = 0
    """Notes taken since."""
    words: str = "the start"
    """What the main thread does, such as "turn generator"."""
    is_waiting: bool = False
    """Whether it waits for the other ranks there."""
    is_under_way: bool = False
    """Whether this start has made a step: nothing takes as long as the first one."""

    def __str__(self) -> str:
        wait = ", waiting for the other ranks" if self.is_waiting else ""
        return f"step {self.steps}, {self.words}{wait}" if self.is_under_way else f"{self.words}{wait}"


_place = Place()
_waited_s = 0.0


def here() -> Place:
    """Return where the main thread is; any thread may ask."""
    return _place


def note(words: str, steps: int | None = None, is_under_way: bool | None = None) -> None:
    """Note what the main thread does from now on; with `steps`, that many steps have been made before it."""
    global _place
    if steps is not None and steps != _place.steps:
        _place = replace(_place, steps=steps, moves=0)
    under_way = _place.is_under_way if is_under_way is None else is_under_way
    _place = replace(_place, moves=_place.moves + 1, words=words, is_under_way=under_way)


@contextmanager
def waiting() -> Iterator[None]:
    """Note that the main thread waits for other ranks inside; other threads may enter, and are not counted."""
    global _place, _waited_s
    if threading.current_thread() is not threading.main_thread() or _place.is_waiting:
        yield
        return
    started_s = time.perf_counter()
    _place = replace(_place, moves=_place.moves + 1, is_waiting=True)
    try:
        yield
    finally:
        _place = replace(_place, moves=_place.moves + 1, is_waiting=False)
        _waited_s += time.perf_counter() - started_s


def waited_s() -> float:
    """Return how long the main thread has waited for other ranks inside `waiting`, seconds."""
    return _waited_s
