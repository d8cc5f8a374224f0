"""Who of the ranks is missing: judged from what each of them was last heard to do. No sockets, no clock of its own.

A rank that the others wait for is one that does not answer (its machine or process is gone or frozen), or one whose
main thread has stayed in one place for too long and does not itself wait for others there. Where all of them wait, a
rank is further on than the others: it left out something that they do together.
"""

from dataclasses import dataclass, field

from bigtrain.engine.heartbeat.whereabouts import Place
from bigtrain.recipe.errors import EXIT_BUG, RankLostError

START_FACTOR = 3  # the first step may take so much longer: compiling, staging data, real statistics
LEAST_START_S = 600.0
NAMED_RANKS = 4  # in a sentence, besides the missing one
AGAIN = "start the run again: it goes on from its newest checkpoint"


@dataclass(frozen=True)
class Limits:
    """How long a rank may stay in one place, seconds."""

    step_s: float
    start_s: float
    """Until its first step is made."""

    @classmethod
    def of(cls, timeout_minutes: float) -> "Limits":
        """Return the limits that a recipe's `timeout_minutes` means."""
        step_s = timeout_minutes * 60
        return cls(step_s, max(START_FACTOR * step_s, LEAST_START_S))


@dataclass(frozen=True)
class Verdict:
    """Why the run cannot go on."""

    rank: int
    """The rank that is missing."""
    sentence: str
    exit_status: int = RankLostError.exit_status
    is_silent: bool = True
    """Whether that rank can no longer say it itself."""
    is_urgent: bool = False
    """Whether the others may hang: nothing tells a main thread that its peer has stopped."""

    def error(self) -> RankLostError:
        """Return what the other ranks raise."""
        error = RankLostError(self.sentence)
        error.exit_status = self.exit_status
        return error


@dataclass
class _Rank:
    host: str
    heard_s: float
    moved_s: float
    place: Place = field(default_factory=Place)


class RollCall:
    """What was heard of each rank, and what follows from it; times are of one clock that never goes back."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._ranks: dict[int, _Rank] = {}

    def place_of(self, rank: int) -> Place:
        """Return where a rank was last seen."""
        return self._ranks[rank].place

    @property
    def ranks(self) -> list[int]:
        """The ranks that were heard and have not left."""
        return list(self._ranks)

    def hear(self, rank: int, host: str, place: Place, now_s: float) -> None:
        """Take down where a rank says it is."""
        known = self._ranks.setdefault(rank, _Rank(host, now_s, now_s))
        if place != known.place:
            known.place, known.moved_s = place, now_s
        known.host, known.heard_s = host, now_s

    def leave(self, rank: int) -> None:
        """Expect nothing more of a rank: it said goodbye."""
        self._ranks.pop(rank, None)

    def forgive(self, now_s: float) -> None:
        """Start counting anew: this process itself was stopped meanwhile, and with it perhaps the whole job."""
        for known in self._ranks.values():
            known.heard_s = known.moved_s = now_s

    def died(self, rank: int) -> Verdict:
        """Return the verdict over a rank whose connection broke."""
        return Verdict(rank, f"rank {rank} is lost: its process ended {self._seen(rank)}; {AGAIN}")

    def failed(self, rank: int, reason: str, exit_status: int) -> Verdict:
        """Return the verdict over a rank that said so itself; where a user can mend the cause, with its status."""
        status = RankLostError.exit_status if exit_status == EXIT_BUG else exit_status
        return Verdict(rank, f"rank {rank} failed: {reason} ({self._seen(rank)})", status, is_silent=False)

    def judge_silence(self, now_s: float) -> Verdict | None:
        """Return the verdict over a rank that does not answer, None where all do."""
        for rank, known in self._ranks.items():
            silent_s = now_s - known.heard_s
            if silent_s > self._limit_s:
                words = f"rank {rank} is lost: its process has not answered for {silent_s:.0f} s"
                return Verdict(rank, f"{words} {self._seen(rank)}; {AGAIN}", is_urgent=True)
        return None

    def judge(self, now_s: float) -> Verdict | None:
        """Return the verdict over the rank that the others wait for, None while all is well."""
        if (silence := self.judge_silence(now_s)) is not None:
            return silence
        places = {rank: known.place for rank, known in self._ranks.items()}
        busy = [rank for rank in places if not places[rank].is_waiting]
        # Who waits inside a backward pass is not known to wait, but it is further on than the one it waits for.
        rank = min(busy, key=places.__getitem__) if busy else max(places, key=places.__getitem__)
        still_s = min(now_s - known.moved_s for other, known in self._ranks.items() if other == rank or not busy)
        if still_s <= self._limit_s:
            return None
        words = f"rank {rank} is stuck: its main thread has not moved for {still_s:.0f} s"
        return Verdict(rank, f"{words} {self._seen(rank)}{self._elsewhere(rank)}; {AGAIN}", is_urgent=True)

    @property
    def _limit_s(self) -> float:
        """How long a rank may stay in one place: once one of them has made a step, all have."""
        is_under_way = any(known.place.is_under_way for known in self._ranks.values())
        return self._limits.step_s if is_under_way else self._limits.start_s

    def _elsewhere(self, stuck: int) -> str:
        """Return where others are, for who wants to know what they wait for."""
        places = {rank: known.place for rank, known in self._ranks.items() if rank != stuck}
        named = [f"rank {rank} at {place}" for rank, place in list(places.items())[:NAMED_RANKS]]
        more = f" and {len(places) - len(named)} more" if len(places) > len(named) else ""
        return f", {', '.join(named)}{more}" if named else ""

    def _seen(self, rank: int) -> str:
        known = self._ranks.get(rank)
        return "before it was seen" if known is None else f"on {known.host}, last seen at {known.place}"
