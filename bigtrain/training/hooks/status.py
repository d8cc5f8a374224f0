"""Status lines: the means of a period, speeds, memory; a progress bar; projections to trackers."""

import resource
import time
from collections.abc import Mapping
from typing import NoReturn

import torch
from tqdm import tqdm

from bigtrain.data.batch import Batch
from bigtrain.data.stream.shards import StreamSet
from bigtrain.recipe.progress import crossed
from bigtrain.training.health.stragglers import RankFigures, by_rank, gather, stragglers
from bigtrain.training.run import Run

HELDOUT_IMAGES = 256  # of the held-out part, at most, that the discriminator is asked about each period
GIB = 2**30


class ProgressBar:
    """Images seen, images a second, time left and the newest losses, on the main process's terminal."""

    def __init__(self) -> None:
        self._bar: tqdm[NoReturn] | None = None  # drawn from the first step on, below what the start has to say

    def _open(self, run: Run) -> "tqdm[NoReturn]":
        return tqdm(
            total=run.recipe.num_steps * run.recipe.batch_images,
            initial=run.images_before_step,
            unit="img",
            unit_scale=True,
            desc=run.recipe.name,
            disable=not run.launch.ranks.is_main,
            mininterval=1.0,
            smoothing=0.05,
        )

    def due(self, run: Run) -> bool:
        """After every step; tqdm itself draws at most once a second."""
        return True

    def run(self, run: Run) -> None:
        """Move the bar."""
        if self._bar is None:
            self._bar = self._open(run)
        self._bar.update(run.recipe.batch_images)
        if run.is_done:
            self._bar.close()

    def went_back(self, run: Run) -> None:
        """Move the bar back."""
        if self._bar is not None:
            self._bar.n = run.progress.images_seen
            self._bar.refresh()

    def show(self, figures: Mapping[str, float]) -> None:
        """Put the losses behind the bar."""
        shown = {
            name.removeprefix("loss_")[:1].upper(): f"{value:.3f}" for name, value in figures.items() if "loss_" in name
        }
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)


class Status:
    """Writes one `status` event a period and hands it to the trackers."""

    def __init__(self, run: Run, bar: ProgressBar) -> None:
        self._bar = bar
        self._period_images = run.recipe.log.every_images
        self._since_s, self._since_images, self._since_wait_s = time.monotonic(), run.progress.images_seen, 0.0
        self._heldout = run.launch.ranks.together(lambda: _heldout_batches(run))  # shards may have to be copied

    def due(self, run: Run) -> bool:
        """When `log.every_images` were crossed, and at the end."""
        return crossed(self._period_images, run.images_before_step, run.progress.images_seen) or run.is_done

    def went_back(self, run: Run) -> None:
        """Measure speeds from here on."""
        self._since_s, self._since_images, self._since_wait_s = (
            time.monotonic(),
            run.progress.images_seen,
            run.feed.wait_s,
        )

    def run(self, run: Run) -> None:
        """Write the line."""
        run.settle()
        means = run.means.take()
        if self._heldout:
            means["sign_heldout"] = self._sign_heldout(run)
        speeds = self._speeds(run)
        ranks = gather(
            run.launch.ranks, RankFigures.of(run.engine.pace.take(), speeds["data_wait_s"], speeds["memory_gib"])
        )
        figures = {
            **means,
            "kimg": run.progress.images_seen / 1000,
            "reals_shown": run.progress.position,
            **speeds,
        }
        if run.recipe.data.on_error == "skip":
            figures["bad_samples"] = run.damage.replaced
        run.log.event("status", run.progress, **figures, **by_rank(ranks))
        for alarm in stragglers(ranks):
            run.log.event("alarm", run.progress, **alarm)
        self._bar.show(means)
        run.project(figures)

    def _speeds(self, run: Run) -> dict[str, float]:
        now_s, images, wait_s = time.monotonic(), run.progress.images_seen, run.feed.wait_s
        spent_s = max(now_s - self._since_s, 1e-9)
        speeds = {
            "images_per_s": (images - self._since_images) / spent_s,
            "data_wait_s": wait_s - self._since_wait_s,
            "memory_gib": _memory_gib(run.launch.device),
        }
        self._since_s, self._since_images, self._since_wait_s = now_s, images, wait_s
        return speeds

    @torch.no_grad()
    def _sign_heldout(self, run: Run) -> float:
        """Mean sign of the discriminator on images it never trained on: far under `sign_real` means that it
        memorises."""
        networks = run.game.networks
        for network in networks.values():
            network.eval()
        logits = torch.cat([run.game.judge(networks, part.on_device(run.launch.device)) for part in self._heldout])
        for network in networks.values():
            network.train()
        return float(logits.sign().mean())


def _heldout_batches(run: Run) -> list[Batch]:
    """Return the first held-out images in micro-batches, which fit memory; none without `data.holdout`.

    Networks may compare the images of one: batches hold whole statistics groups, whatever the micro-batch.
    """
    if isinstance(run.shards, StreamSet):
        return []
    held = run.shards.holdout()
    numbers = held.numbers()[:HELDOUT_IMAGES].tolist() if held.num_samples else []
    group = run.recipe.minibatch_std_images or 1
    size = -(-run.engine.layout.micro_images // group) * group
    whole = len(numbers) // group * group or len(numbers)
    return [held.load(numbers[first : min(first + size, whole)]) for first in range(0, whole, size)]


def _memory_gib(device: torch.device) -> float:
    """Return the most memory used so far: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
