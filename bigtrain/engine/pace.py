"""How long a rank takes for its own part of a step, without waiting for the other ranks.

In synchronous training every rank's step takes as long as the slowest rank's. What tells them apart is how long each
computes until it has its own gradients: from the start of a micro-batch's forward pass until the last gradient of its
backward pass is there, before DDP waits for the reduction. On a CPU that is measured on the main thread, without its
waits for statistics of other ranks. On a GPU two events on the stream measure it and are read once the device has
passed them, so nothing waits for the device; there, statistics that are synchronised inside a network count as own time
on all ranks, which makes a slow rank harder to tell.
"""

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bigtrain.engine.heartbeat import whereabouts

MS_PER_S = 1000.0


@dataclass(frozen=True)
class PaceFigures:
    """Totals since they were taken last, seconds."""

    steps: int
    step_s: float
    compute_s: float


class Pace:
    """Measures steps and the own computing in them."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._spans: deque[tuple[Any, Any]] = deque()
        self._started: Any = None
        self._step_started_s: float | None = None
        self._steps, self._step_s, self._compute_s = 0, 0.0, 0.0

    def begin_step(self) -> None:
        """Mark the start of a step."""
        self._step_started_s = time.perf_counter()

    def end_step(self) -> None:
        """Count a step."""
        if self._step_started_s is not None:
            self._steps, self._step_s = self._steps + 1, self._step_s + time.perf_counter() - self._step_started_s
        self._step_started_s = None

    def begin(self) -> None:
        """Mark the start of a micro-batch's forward pass."""
        self._started = self._mark()

    def end_after(self, loss: Tensor) -> None:
        """Mark the end of a micro-batch where all gradients of `loss` have been computed; call it before backward."""
        if loss.requires_grad:
            loss.register_hook(self._queue_end)

    def take(self) -> PaceFigures:
        """Return the totals since the last call; call it when the device has done all steps."""
        self._read_spans()
        figures = PaceFigures(self._steps, self._step_s, self._compute_s)
        self._steps, self._step_s, self._compute_s = 0, 0.0, 0.0
        return figures

    def _queue_end(self, slope: Tensor) -> None:
        # What is queued first is called first: DDP queues its wait for the reduction with its last bucket.
        torch.autograd.Variable._execution_engine.queue_callback(self._end)

    def _end(self) -> None:
        if self._started is not None:
            self._spans.append((self._started, self._mark()))
            self._started = None
            self._read_spans()

    def _mark(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter() - whereabouts.waited_s()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _read_spans(self) -> None:
        """Add up the spans that the device has passed."""
        while self._spans:
            first, last = self._spans[0]
            if self._on_gpu and not last.query():
                return
            self._compute_s += first.elapsed_time(last) / MS_PER_S if self._on_gpu else last - first
            self._spans.popleft()
