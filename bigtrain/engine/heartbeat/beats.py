"""A heartbeat between ranks: who is missing is noticed and named by all others, whatever their main threads wait in.

A thread of every rank tells rank 0 where its main thread is, a line a second over a connection of its own, and rank 0
answers. Rank 0 judges (`roll_call`) and tells all; that rank 0 itself is gone, each of the others sees. Gloo raises in
a main thread when its peer ends, and hangs when the peer stops; with NCCL it hangs in both cases. So a main thread that
raises is told why, and one that hangs is ended by its heartbeat.

The same messages carry word of a signal to ranks that did not get it, for work between two agreements (`preemption`).
"""

import contextlib
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import Any

from bigtrain.engine.heartbeat import whereabouts
from bigtrain.engine.heartbeat.link import Link, Message, listen
from bigtrain.engine.heartbeat.roll_call import Limits, RollCall, Verdict
from bigtrain.engine.heartbeat.whereabouts import Place
from bigtrain.engine.processes.preemption import SignalWatch
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import EXIT_BUG, BigtrainError, RankLostError

BEAT_S = 1.0
BEATS_PER_S = 100  # that rank 0 reads at most, however many ranks there are
STOPPED_BEATS = 5  # a gap of so many in our own beat means that this process was stopped
EXPLAIN_S = 3.0  # how long an error that a missing peer could have caused waits for the word that one is missing
LEAVE_S = 5.0  # how long a main thread that may still raise by itself has to leave
RAISED_BY_PEERS = (RuntimeError, ConnectionError, EOFError)  # what torch.distributed raises when a peer is gone


class Heartbeat:
    """Entered by all ranks together around everything that they do together; does nothing in a run of one process."""

    def __init__(
        self, ranks: Ranks, limits: Limits, signals: SignalWatch, on_lost: Callable[[Verdict], object]
    ) -> None:
        """Prepare.

        Args:
            ranks: whom to listen to.
            limits: how long a rank may stay in one place.
            signals: this rank's; told what the others were sent.
            on_lost: writes down why the run ends; the main thread may hang meanwhile.
        """
        self._ranks, self._limits, self._signals, self._on_lost = ranks, limits, signals, on_lost
        self._beat_s = max(BEAT_S, ranks.world / BEATS_PER_S)
        self._verdict: Verdict | None = None
        self._judged, self._ended = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._post: _Hub | _Member | None = None

    def __enter__(self) -> "Heartbeat":
        """Connect and start to beat.

        Raises:
            RankLostError: a rank cannot reach rank 0.
        """
        if self._ranks.world > 1:
            self._post = _join(self._ranks, RollCall(self._limits), self._signals)
            self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say goodbye, or why this rank leaves.

        Raises:
            RankLostError: in place of the error that the loss of another rank has caused here.
        """
        if self._post is None:
            return
        if isinstance(error, RAISED_BY_PEERS):
            self._judged.wait(EXPLAIN_S)
        self._ended.set()
        self._post.wake()
        assert self._thread is not None
        self._thread.join(LEAVE_S)
        self._post.leave(None if error is None else _failure(error))
        if self._verdict is not None and isinstance(error, RAISED_BY_PEERS):
            self._on_lost(self._verdict)
            raise self._verdict.error() from error

    def _beat(self) -> None:
        assert self._post is not None
        while not self._ended.is_set() and self._verdict is None:
            self._verdict = self._post.beat(self._beat_s)
        if self._verdict is not None:
            self._judged.set()
            self._end_main_thread(self._verdict)

    def _end_main_thread(self, verdict: Verdict) -> None:
        """End this process, unless the main thread comes to its end by itself in time."""
        if self._ended.wait(0.0 if verdict.is_urgent else LEAVE_S):
            return
        self._on_lost(verdict)
        sys.stderr.write(f"{verdict.sentence}\n")
        sys.stderr.flush()
        os._exit(verdict.exit_status)


def _failure(error: BaseException) -> Message:
    reason = f"{type(error).__name__}: {error}"
    return {"reason": reason, "status": error.exit_status if isinstance(error, BigtrainError) else EXIT_BUG}


def _join(ranks: Ranks, roll_call: RollCall, signals: SignalWatch) -> "_Hub | _Member":
    """Open the connections to rank 0; collective."""
    server = listen() if ranks.is_main else None
    port = server.getsockname()[1] if server is not None else 0
    # Rank 0's host under the name that all of them found it by when they met.
    host = os.environ.get("MASTER_ADDR", "127.0.0.1")
    port, token = ranks.broadcast_object((port, secrets.token_hex(16)))
    post: _Hub | _Member | None = None
    problem = None
    try:
        if server is not None:
            post = _Hub(server, token, roll_call, signals)
        else:
            post = _Member(ranks.rank, Link.to(host, port), token, roll_call, signals)
    except OSError as error:
        problem = f"cannot reach rank 0 at {host}:{port} ({error})"
    if problems := ranks.gather_problems(problem):
        raise RankLostError(f"{problems[0]}; let the hosts of a run open connections to each other")
    assert post is not None
    return post


class _Post:
    """What both kinds of rank do with their connections."""

    def __init__(self, rank: int, roll_call: RollCall, signals: SignalWatch) -> None:
        self.rank, self.roll_call, self.signals = rank, roll_call, signals
        self.host = socket.gethostname()
        self._ready_s = time.monotonic()
        self.selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self.selector.register(self._woken, selectors.EVENT_READ, self._woken)
        self.selector.register(signals.arrivals, selectors.EVENT_READ, signals.arrivals)

    def wake(self) -> None:
        """Have `ready` return at once."""
        self._waker.send(b"!")

    def own_place(self) -> Message:
        """Return where this rank is, and what it was asked."""
        return {"host": self.host, "place": asdict(whereabouts.here()), "asked": self.asked}

    @property
    def asked(self) -> str | None:
        """Who was asked to stop, as far as is known here."""
        caught = self.signals.caught
        return f"{caught} on rank {self.rank}" if caught is not None else self.signals.elsewhere

    def hear(self, rank: int, message: Message) -> Verdict | None:
        """Take a message of a rank; return what it means for the run."""
        now_s = time.monotonic()
        if "reason" in message:
            return self.roll_call.failed(rank, message["reason"], message["status"])
        if "goodbye" in message:
            self.roll_call.leave(rank)
        if "place" in message:
            self.roll_call.hear(rank, message["host"], Place(**message["place"]), now_s)
            self.signals.elsewhere = self.signals.elsewhere or message["asked"]
        return None

    def ready(self, wait_s: float) -> list[Any]:
        """Wait for a message at most so long; return who has sent one. Signals to this process end the wait too."""
        found = [key.data for key, _ in self.selector.select(wait_s)]
        now_s = time.monotonic()
        if now_s - self._ready_s > STOPPED_BEATS * wait_s:
            self.roll_call.forgive(now_s)
        self._ready_s = now_s
        if self.signals.arrivals in found:
            self.signals.arrived()
        return [data for data in found if data not in (self._woken, self.signals.arrivals)]


class _Hub(_Post):
    """Rank 0's end: a connection to every other rank."""

    def __init__(self, server: socket.socket, token: str, roll_call: RollCall, signals: SignalWatch) -> None:
        super().__init__(0, roll_call, signals)
        self._server, self._token = server, token
        self._links: dict[int, Link] = {}
        self._judged_s = 0.0
        self.selector.register(server, selectors.EVENT_READ, None)

    def beat(self, wait_s: float) -> Verdict | None:
        """Hear whoever has something to say, judge, and tell all."""
        asked = self.asked
        verdict = None
        for source in self.ready(wait_s):
            if verdict is not None:
                break
            if source is None:
                self._accept()
            else:
                verdict = self._read(source)
        now_s = time.monotonic()
        self.roll_call.hear(0, self.host, whereabouts.here(), now_s)
        if verdict is None and now_s - self._judged_s >= wait_s:
            verdict, self._judged_s = self.roll_call.judge(now_s), now_s
        if verdict is not None:
            self._tell({"verdict": asdict(verdict)})
        elif self.asked != asked:
            self._tell(self.own_place())
        return verdict

    def leave(self, failure: Message | None) -> None:
        """Say goodbye or why, and close."""
        self._tell(failure or {"goodbye": True})
        for link in self._links.values():
            link.close()
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it has left again
            link = Link(self._server.accept()[0])
            self.selector.register(link.connection, selectors.EVENT_READ, link)

    def _read(self, link: Link) -> Verdict | None:
        rank = next((rank for rank, known in self._links.items() if known is link), None)
        messages, is_there = link.receive()
        for message in messages:
            if rank is None and message.get("token") == self._token:
                rank = int(message["rank"])
                self._links[rank] = link
            if rank is None:  # not one of ours
                is_there = False
                break
            if (verdict := self.hear(rank, message)) is not None:
                return verdict
            if "place" in message:
                link.send(self.own_place())
        if is_there:
            return None
        self.selector.unregister(link.connection)
        link.close()
        if rank is None or rank not in self.roll_call.ranks:
            return None  # a stranger, or one that said goodbye
        return self.roll_call.died(rank)

    def _tell(self, message: Message) -> None:
        for link in self._links.values():
            link.send(message)


class _Member(_Post):
    """The end of any other rank: a connection to rank 0."""

    def __init__(self, rank: int, link: Link, token: str, roll_call: RollCall, signals: SignalWatch) -> None:
        super().__init__(rank, roll_call, signals)
        self._link = link
        self._beaten_s = 0.0
        self._told: str | None = None
        roll_call.hear(0, os.environ.get("MASTER_ADDR", "rank 0's host"), Place(), time.monotonic())
        link.send({"token": token, "rank": rank, **self.own_place()})
        self.selector.register(link.connection, selectors.EVENT_READ, link)

    def beat(self, wait_s: float) -> Verdict | None:
        """Say where this rank is, and hear what rank 0 says."""
        now_s, asked = time.monotonic(), self.asked
        if now_s - self._beaten_s >= wait_s or asked != self._told:
            self._link.send(self.own_place())
            self._beaten_s, self._told = now_s, asked
        for _ in self.ready(wait_s):
            messages, is_there = self._link.receive()
            for message in messages:
                if "verdict" in message:
                    return Verdict(**message["verdict"])
                if (verdict := self.hear(0, message)) is not None:
                    return verdict
            if not is_there:
                self.selector.unregister(self._link.connection)
                return self.roll_call.died(0) if 0 in self.roll_call.ranks else None  # gone, or done and so are we
        now_s = time.monotonic()
        # Our own place too: once we have made a step, rank 0 has, also if it was stopped before it could say so.
        self.roll_call.hear(self.rank, self.host, whereabouts.here(), now_s)
        return self.roll_call.judge_silence(now_s)  # whether rank 0's main thread moves, it judges itself

    def leave(self, failure: Message | None) -> None:
        """Say goodbye or why, and close."""
        self._link.send(failure or {"goodbye": True})
        self._link.close()
