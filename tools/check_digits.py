"""Judges a run on the handwritten digits and prints its final figures: `python tools/check_digits.py RUN`.

The judge is a support vector machine that the project trains for nothing else: scikit-learn's SVC(gamma=0.001), fitted
on all 1,797 real digits (8x8, 0..16). 1,000 images drawn without truncation, 100 a class, are box-averaged to 8x8 and
scaled to 0..16. They pass when the judge reads enough of them as their label, in nearly every class, and when images
of one class differ from each other at least half as much as real ones do.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.svm import SVC

NUM_CLASSES = 10
NUM_SAMPLES = 1_000
SIDE = 8  # of scikit-learn's digits, in pixels
LARGEST = 16.0  # their value of ink
FIGURES: dict[str, tuple[str, ...]] = {
    "status": ("images_seen", "step", "loss_discriminator", "loss_generator", "images_per_s"),
    "evaluation": (),  # all of them
}
LEAST_ACCURACY = 0.90
LEAST_CLASS_ACCURACY = 0.75
LEAST_CLASSES = 9
LEAST_SPREAD = 0.5  # of the real digits' mean distance within a class


@dataclass(frozen=True)
class Verdict:
    """What the judge says of a set of drawn digits."""

    accuracy: float
    class_accuracy: tuple[float, ...]
    spread: float
    real_spread: float

    @property
    def num_good_classes(self) -> int:
        """Classes of which more than the least share is read as its label."""
        return sum(accuracy > LEAST_CLASS_ACCURACY for accuracy in self.class_accuracy)

    @property
    def passed(self) -> bool:
        """All three demands are met."""
        spread = self.spread >= LEAST_SPREAD * self.real_spread
        return self.accuracy >= LEAST_ACCURACY and self.num_good_classes >= LEAST_CLASSES and spread


def to_digits(image_NCHW: np.ndarray) -> np.ndarray:
    """Box-average uint8 images [N, C, side, side] to [N, 64], gray, 0..16.

    Raises:
        ValueError: the side is not a multiple of 8.
    """
    num, _, side, _ = image_NCHW.shape
    if side % SIDE:
        raise ValueError(f"images of {side} px cannot be averaged to {SIDE}x{SIDE}; draw them at a multiple of {SIDE}")
    gray_NHW = image_NCHW.astype(np.float64).mean(axis=1)
    box = side // SIDE
    small_NHW = gray_NHW.reshape(num, SIDE, box, SIDE, box).mean(axis=(2, 4))
    digit_NF: np.ndarray = small_NHW.reshape(num, SIDE * SIDE) * (LARGEST / 255.0)
    return digit_NF


def spread_within_classes(digit_NF: np.ndarray, label_N: np.ndarray) -> float:
    """Return the mean Euclidean distance between two different images of one class, averaged over the classes."""
    means = []
    for label in range(NUM_CLASSES):
        group_MF = digit_NF[label_N == label]
        square_M = (group_MF**2).sum(axis=1)
        square_MM = np.maximum(square_M[:, None] + square_M[None, :] - 2 * group_MF @ group_MF.T, 0.0)
        np.fill_diagonal(square_MM, 0.0)
        means.append(np.sqrt(square_MM).sum() / (len(group_MF) * (len(group_MF) - 1)))
    return float(np.mean(means))


def judge(digit_NF: np.ndarray, label_N: np.ndarray) -> Verdict:
    """Return what the judge says of drawn digits [N, 64] in 0..16 with the labels they were drawn for."""
    real = load_digits()
    read_N = SVC(gamma=0.001).fit(real.data, real.target).predict(digit_NF)
    right_N = read_N == label_N
    return Verdict(
        accuracy=float(right_N.mean()),
        class_accuracy=tuple(float(right_N[label_N == label].mean()) for label in range(NUM_CLASSES)),
        spread=spread_within_classes(digit_NF, label_N),
        real_spread=spread_within_classes(real.data, real.target),
    )


def verdict_text(verdict: Verdict) -> str:
    """Write a verdict with the demand beside each figure."""
    classes = "  ".join(f"{label}: {accuracy:.0%}" for label, accuracy in enumerate(verdict.class_accuracy))
    share = verdict.spread / verdict.real_spread
    return "\n".join(
        (
            f"digits recognised   {verdict.accuracy:.1%}  (at least {LEAST_ACCURACY:.0%})",
            f"by class            {classes}",
            f"classes above {LEAST_CLASS_ACCURACY:.0%}   {verdict.num_good_classes} of {NUM_CLASSES}  "
            f"(at least {LEAST_CLASSES})",
            f"spread in a class   {verdict.spread:.1f}, of the real {verdict.real_spread:.1f}: {share:.0%}  "
            f"(at least {LEAST_SPREAD:.0%})",
            f"verdict             {'passed' if verdict.passed else 'NOT passed'}",
        )
    )


def run_text(run: Path) -> str:
    """Write the last figures of a run's log and where its files are."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    text = [f"{event:<20}{_figures(lines, event)}" for event in FIGURES if _figures(lines, event)]
    text.append(f"sample grid         {_newest(run / 'samples', '*.png')}")
    text.append(f"log                 {run / 'log.jsonl'}")
    text.append(f"checkpoint          {_newest(run / 'checkpoints', '[0-9]*')}")
    return "\n".join(text)


def _figures(lines: list[dict[str, Any]], event: str) -> str:
    last: dict[str, Any] = next((line for line in reversed(lines) if line.get("event") == event), {})
    wanted = FIGURES[event] or [key for key in last if key not in ("step", "time_s")]
    figures = {key: last[key] for key in wanted if isinstance(last.get(key), int | float)}
    return "  ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items()
    )


def _newest(folder: Path, pattern: str) -> str:
    return str(max(folder.glob(pattern), default=f"none in {folder}"))


def main() -> int:
    """Draw, judge, print; the exit status is 0 when the digits pass, 1 when not, and 2 or more for a run that the judge
    cannot read, with a sentence on stderr.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run, a checkpoint or a snapshot")
    parser.add_argument("--seed", type=int, default=0, help="seed of the latents")
    arguments = parser.parse_args()

    from bigtrain.cli import run_door

    return run_door(lambda: _check(arguments.run, arguments.seed))


def _check(run: Path, seed: int) -> int:
    import bigtrain  # after parsing: torch takes seconds to import
    from bigtrain.recipe.errors import UsageError

    model = bigtrain.load(run)
    if model.image.num_classes != NUM_CLASSES:
        raise UsageError(
            f"{run} was trained on images of {model.image.num_classes} classes, but the judge asks for digits of "
            f"{NUM_CLASSES} classes; name a run on the shards of `bigtrain shards digits`"
        )
    label_N = np.arange(NUM_SAMPLES) % NUM_CLASSES
    image_NCHW = model.sample(NUM_SAMPLES, labels=label_N.tolist(), seed=seed)
    verdict = judge(to_digits(image_NCHW.cpu().numpy()), label_N)
    if (run / "log.jsonl").is_file():
        print(run_text(run))
    print(verdict_text(verdict))
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main())
