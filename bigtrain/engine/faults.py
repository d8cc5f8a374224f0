"""Faults on purpose, so that tests can prove what a run survives. Nothing happens unless BIGTRAIN_FAULT is set.

    BIGTRAIN_FAULT="<kind>@<site>:<n>[,rank=<r>][;...]"

The n-th time (from 1) that a process reaches a site, the fault happens there; without `rank`, on every rank.

Kinds: `kill` (SIGKILL), `stop` (SIGSTOP), `exception`, `eio` and `enospc` (the disk's errors), `slow` (a pause), `nan`
(a value becomes NaN) and `flip` (one bit of what is written changes).
"""

import errno
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from bigtrain.recipe.errors import UsageError

VARIABLE = "BIGTRAIN_FAULT"
SITES = (
    "step", "backward", "allreduce", "data", "checkpoint.write", "checkpoint.fsync", "checkpoint.rename",
    "checkpoint.prune", "load", "evaluate",
)  # fmt: skip
SLOW_S = 3.0
FORM = re.compile(r"(?P<kind>\w+)@(?P<site>[\w.]+):(?P<number>[1-9]\d*)(,rank=(?P<rank>\d+))?")


class InjectedFaultError(Exception):
    """Raised by the kind `exception`: stands for a bug of ours."""


@dataclass(frozen=True)
class Fault:
    """One fault: what happens, where, and at which visit."""

    kind: str
    site: str
    number: int
    rank: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Read "kill@step:3,rank=1".

        Raises:
            UsageError: it is no fault of the known kinds and sites.
        """
        match = FORM.fullmatch(text.strip())
        if match is None or match["kind"] not in KINDS or match["site"] not in SITES:
            raise UsageError(
                f"{VARIABLE}: '{text}' is not <kind>@<site>:<n>[,rank=<r>] with a kind of {', '.join(KINDS)} and a "
                f"site of {', '.join(SITES)}; correct or unset it"
            )
        return cls(match["kind"], match["site"], int(match["number"]), int(match["rank"]) if match["rank"] else None)


_armed: list[Fault] = []
_visits: Counter[tuple[str, str]] = Counter()


def arm(text: str, rank: int) -> None:
    """Prepare the faults that `text` lists for this rank, and count visits from now on; an empty text disarms.

    Raises:
        UsageError: the text is wrong.
    """
    faults = [Fault.parse(part) for part in text.split(";") if part.strip()]
    _armed[:] = [fault for fault in faults if fault.rank in (None, rank)]
    _visits.clear()


def reach(site: str) -> None:
    """Be at a site: what is armed for this visit happens, but for `nan` and `flip`, which need a value."""
    for fault in _due(site, "visits"):
        KINDS[fault.kind]()


def spoil(site: str, value: Tensor) -> Tensor:
    """Return a float tensor that passes a site, or NaN in its place where `nan` is armed for this one."""
    is_spoiled = any(fault.kind == "nan" for fault in _due(site, "values"))
    return value * float("nan") if is_spoiled else value  # a product, so that a loss keeps its graph


def spoil_bytes(site: str, content: memoryview) -> memoryview:
    """Return bytes that pass a site on their way to the disk, one bit flipped where `flip` is armed for them."""
    if not any(fault.kind == "flip" for fault in _due(site, "bytes")):
        return content
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return memoryview(changed)


def _due(site: str, what: str) -> list[Fault]:
    if not _armed:
        return []
    _visits[site, what] += 1
    return [fault for fault in _armed if fault.site == site and fault.number == _visits[site, what]]


def _nothing() -> None:
    pass


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _raise() -> None:
    raise InjectedFaultError("injected")


def _fail(number: int) -> None:
    raise OSError(number, f"{os.strerror(number)} (injected)")


KINDS: dict[str, Callable[[], None]] = {
    "kill": _kill,
    "stop": _stop,
    "exception": _raise,
    "eio": lambda: _fail(errno.EIO),
    "enospc": lambda: _fail(errno.ENOSPC),
    "slow": lambda: time.sleep(SLOW_S),
    "nan": _nothing,
    "flip": _nothing,
}
"""What each kind does to the process; `nan` and `flip` act on the value that a site hands in."""
