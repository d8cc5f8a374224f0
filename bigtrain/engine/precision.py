"""Number formats of a turn: float32 parameters always, autocast around the forward pass, one loss scaler a player in
fp16; and compilation of what is computed in them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from bigtrain.games.base import LossFunction

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}  # fp32 enters no autocast


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which a turn's forward pass runs."""
    dtype = AUTOCAST_DTYPES.get(precision)
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def build_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Return a loss scaler for one player; it passes everything through unless the precision is fp16."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def set_backend_precision(tf32: bool, deterministic: bool) -> None:
    """Set what the recipe says of TensorFloat-32 and of deterministic kernels, for the whole process."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)


# CUDA graphs reuse the memory of their outputs, while figures of a turn are read after later ones were played.
COMPILE_MODES = {"default": "default", "max-autotune": "max-autotune-no-cudagraphs"}


def compiler(mode: str) -> Callable[[LossFunction], LossFunction]:
    """Return what compiles a loss function in one of COMPILE_MODES; shapes are fixed, as those of a run are."""

    def compiled(loss: LossFunction) -> LossFunction:
        return torch.compile(loss, mode=COMPILE_MODES[mode], dynamic=False)

    return compiled
