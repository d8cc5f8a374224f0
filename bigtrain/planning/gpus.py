"""What GPUs could do at most, from their vendor's data sheets, and which part of that is assumed to be reached.

Peaks are dense (without structured sparsity), of the SXM boards. `fp32` is that of the ordinary units, used where
neither autocast nor TensorFloat-32 applies.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bigtrain.recipe.errors import UsageError
from bigtrain.recipe.registry import Registry

GPUS = Registry("GPU")

# Model FLOP utilisation: FLOP of matrix products and convolutions per second, over the peak of their number format.
# Assumed, not measured. Matrix units: whole runs of StyleGAN2 by its authors come to 7 to 15% (A100, V100), limits of
# memory bandwidth to 25 to 30% for StyleGAN2 at 256 px. Ordinary float32 units: the released BigGAN run came to 65%.
ASSUMED_MFU: Mapping[str, float] = {"fp32": 0.5, "tf32": 0.25, "bf16": 0.25, "fp16": 0.25}


@dataclass(frozen=True)
class Gpu:
    """A board: its memory in GiB and its peaks in TFLOP/s by number format."""

    memory_gib: float
    peak_tflops: Mapping[str, float]
    source: str


GPUS.add("v100")(Gpu(32, {"fp32": 15.7, "fp16": 125}, "NVIDIA V100 data sheet, SXM2"))
GPUS.add("a100-40")(Gpu(40, {"fp32": 19.5, "tf32": 156, "bf16": 312, "fp16": 312}, "NVIDIA A100 data sheet, SXM4"))
GPUS.add("a100")(Gpu(80, {"fp32": 19.5, "tf32": 156, "bf16": 312, "fp16": 312}, "NVIDIA A100 data sheet, SXM4"))
GPUS.add("h100")(Gpu(80, {"fp32": 67, "tf32": 494, "bf16": 989, "fp16": 989}, "NVIDIA H100 data sheet, SXM5"))
GPUS.add("h200")(Gpu(141, {"fp32": 67, "tf32": 494, "bf16": 989, "fp16": 989}, "NVIDIA H200 data sheet, SXM5"))


@dataclass(frozen=True)
class Speed:
    """How fast turns are assumed to go: a GPU, and what replaces its peaks and the assumed utilisation."""

    gpu: str = "h100"
    peak_tflops: float | None = None
    """Peak for all number formats, instead of the GPU's."""
    mfu: float | None = None
    """Utilisation for all number formats, instead of the assumed ones."""

    def flop_per_s(self, number_format: str) -> float:
        """Return the rate that is reckoned with.

        Raises:
            RecipeError: the GPU is not known.
            UsageError: it has no such number format.
        """
        return self.peak(number_format) * 1e12 * self.utilisation(number_format)

    def peak(self, number_format: str) -> float:
        """Return the peak in TFLOP/s."""
        if self.peak_tflops is not None:
            return self.peak_tflops
        peaks = GPUS.get(self.gpu).peak_tflops
        if number_format not in peaks:
            others = ", ".join(sorted(peaks.keys() - {"tf32"}))  # which is no precision of a recipe
            way_out = "set tf32=false" if number_format == "tf32" else f"choose another precision of {others}"
            raise UsageError(
                f"--gpu {self.gpu} has no units for {number_format}; {way_out}, or give a measured rate with "
                "--peak-tflops"
            )
        return float(peaks[number_format])

    def utilisation(self, number_format: str) -> float:
        """Return the part of the peak that is reckoned with."""
        return ASSUMED_MFU[number_format] if self.mfu is None else self.mfu
