"""Weak scaling of a StyleGAN2 64 px step: two processes of one thread each under DDP, against two that do not talk.

    python -m benchmarks.scaling [--json FILE]

Every process computes 8 images a step, both players' main turns. Four processes stay ready and one kind works at a
time, in turn: the two under DDP, two independent ones at once (what the machine gives to two processes at all), and one
of these alone. The last row is what the reduction of gradients adds to a step, the time with it less the time without
it, against a flat blocking all-reduce of all gradients after backward. It is a small difference of large numbers: on a
machine that does anything else besides it says nothing.
"""

import contextlib
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as multiprocessing

from benchmarks.reference_forms import flat_all_reduce
from benchmarks.steps import GROUP_IMAGES, stylegan2
from benchmarks.timing import Row, main
from bigtrain.data.batch import Batch
from bigtrain.engine.engine import Engine, EngineSettings
from bigtrain.engine.optimizers import AdamSettings
from bigtrain.engine.processes.launch import start
from bigtrain.recipe.layout import Layout
from bigtrain.recipe.progress import Progress

ROUNDS = 7
WORLD = 2
STEP = Progress(steps=1)  # no lazy penalty is due, so that there is as little to compute a reduction as there can be


class Worker:
    """One process's part of a step, in three forms."""

    def __init__(self, engine: str) -> None:
        torch.set_num_threads(1)
        self.launch = start(engine, timeout_minutes=5)
        self.ranks = self.launch.ranks
        case = stylegan2(64)
        images = case.batch_images
        layout = Layout(self.ranks.rank, self.ranks.world, images, images * self.ranks.world)
        optimizers = {name: AdamSettings(learning_rate=1e-5, betas=(0.0, 0.99)) for name in case.build(None).players}
        settings = EngineSettings(seed=0, layout=layout, optimizers=optimizers, minibatch_std_images=GROUP_IMAGES)
        self.engine = Engine(case.build(None), settings, self.launch)
        made = torch.Generator().manual_seed(self.ranks.rank)
        pixels = torch.randint(256, (images, case.image.channels, *case.image.size), generator=made, dtype=torch.uint8)
        self.batches = (Batch(pixels, torch.zeros(images, dtype=torch.int64), torch.arange(images)),)

    def step(self) -> None:
        """Play both players' main turns."""
        for number, turn in enumerate(self.engine.game.turns(STEP)):
            self.engine.play(turn, number, self.batches, STEP).read()

    def step_without_reduction(self) -> None:
        """Play them while DDP leaves every process its own gradients."""
        with contextlib.ExitStack() as stack:
            for wrapped in self.engine.wrapped.values():
                stack.enter_context(self.launch.accelerator.no_sync(wrapped))
            self.step()

    def reduction(self) -> None:
        """Reduce as many gradients the plain way, and nothing else."""
        for player in self.engine.players.values():
            flat_all_reduce([torch.zeros_like(parameter) for parameter in player.parameters()], self.ranks.world)


def serve(environment: dict[str, str], engine: str, orders: Any) -> None:
    """Be a process: do what is ordered and say when it is done."""
    os.environ.update(environment)
    worker = Worker(engine)
    orders.send("ready")
    while (order := orders.recv()) is not None:
        getattr(worker, order)()
        orders.send("done")


class Crew:
    """Processes that do the same at once."""

    def __init__(self, engine: str, environments: list[dict[str, str]]) -> None:
        context = multiprocessing.get_context("spawn")
        self.lines, self.processes = [], []
        for environment in environments:
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(environment, engine, there), daemon=True)
            process.start()
            self.lines.append(here)
            self.processes.append(process)

    def wait(self, count: int | None = None) -> None:
        """Hear from the first `count` processes, or all; a process that died raises EOFError."""
        for line in self.lines[:count]:
            line.recv()

    def time_s(self, order: str, count: int | None = None) -> float:
        """Return how long the first `count` processes, or all, take to do something at once, seconds."""
        started_s = time.perf_counter()
        for line in self.lines[:count]:
            line.send(order)
        self.wait(count)
        return time.perf_counter() - started_s

    def close(self) -> None:
        """End the processes."""
        for line, process in zip(self.lines, self.processes, strict=True):
            line.send(None)
            process.join()


def _environments() -> list[dict[str, str]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(WORLD), "ACCELERATE_USE_CPU": "true"}
    return [
        {**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(WORLD)} for rank in range(WORLD)
    ]


def rows_of(times_s: dict[str, list[float]]) -> list[Row]:
    """Return the rows from the times of all rounds."""

    def row(name: str, ours_s: float, reference_s: float) -> Row:
        ratio = reference_s / ours_s if ours_s > 0 else None
        return Row(name=name, ours=ours_s, reference=reference_s, ratio=ratio, unit="s")

    median = {name: statistics.median(found) for name, found in times_s.items()}
    added_s = statistics.median(
        ours - without for ours, without in zip(times_s["ddp"], times_s["without"], strict=True)
    )
    return [
        row("stylegan2-64 step, 2 with DDP / 2 independent", median["ddp"], median["independent"]),
        row("stylegan2-64 step, 2 with DDP / 1 alone", median["ddp"], median["alone"]),
        row("stylegan2-64 reduction exposed / flat blocking", added_s, median["flat"]),
    ]


def measure() -> list[Row]:
    """Return all rows; about four minutes."""
    together, apart = Crew("ddp", _environments()), Crew("plain", [{}, {}])
    actions: dict[str, Callable[[], float]] = {
        "ddp": lambda: together.time_s("step"),
        "independent": lambda: apart.time_s("step"),
        "without": lambda: together.time_s("step_without_reduction"),
        "alone": lambda: apart.time_s("step", 1),
        "flat": lambda: together.time_s("reduction"),
    }
    for crew in (together, apart):
        crew.wait()
    for action in actions.values():
        action()
    rounds = [{name: action() for name, action in actions.items()} for _ in range(ROUNDS)]
    for crew in (together, apart):
        crew.close()
    return rows_of({name: [each[name] for each in rounds] for name in actions})


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
