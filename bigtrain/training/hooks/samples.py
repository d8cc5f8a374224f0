"""Grids of generated images from latents that stay the same over training, one row a class."""

import torch

from bigtrain.draws import seed_of
from bigtrain.recipe.progress import crossed
from bigtrain.sampling.files import save_png
from bigtrain.sampling.grids import class_rows, grid
from bigtrain.training.run import Run
from bigtrain.training.sampler import Sampler

DIGITS_IN_NAMES = 12  # of images seen, in the names of files, so that they sort


class SampleGrids:
    """Writes RUN/samples/<images>.png from the first moving average, with its running BatchNorm statistics, on the
    main process."""

    def due(self, run: Run) -> bool:
        """When `samples.every_images` were crossed, and at the end."""
        return crossed(run.recipe.samples.every_images, run.images_before_step, run.progress.images_seen) or run.is_done

    def run(self, run: Run) -> None:
        """Draw and write."""
        run.write_aside("a grid of samples", lambda: self._write(run))

    def _write(self, run: Run) -> None:
        settings, num_classes = run.recipe.samples, run.facts.image.num_classes
        rows = min(num_classes, settings.max_rows) if num_classes else settings.max_rows
        index_N = torch.arange(rows * settings.columns)
        label_N = class_rows(range(rows), settings.columns) if num_classes else None
        average = next(iter(run.averages.averages.values()))
        sampler = Sampler(run.game, average.ready_networks(), run.launch.device, min(len(index_N), 64))
        seed = seed_of(run.recipe.seed, "samples")
        images = torch.cat(list(sampler.images(index_N, label_N, settings.truncation, seed)))
        name = f"{run.progress.images_seen:0{DIGITS_IN_NAMES}d}.png"
        save_png(run.folder / "samples" / name, grid(images, settings.columns))
