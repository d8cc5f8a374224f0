"""What DeepSpeed is told: every number stated, nothing left to its defaults that changes the arithmetic."""

import warnings
from collections import defaultdict

import deepspeed.ops
import torch
from accelerate import DeepSpeedPlugin

BUCKET_ELEMENTS = 25_000_000  # gradients reduced, or weights gathered, at a time: 100 MB in float32


def plugin(stage: int) -> DeepSpeedPlugin:
    """Return the plugin of one player; image counts are ours to divide by, so DeepSpeed's are all 1."""
    if not torch.cuda.is_available():
        # Else the first reduction compiles an extension for shared memory, which takes a compiler and a minute.
        deepspeed.ops.__compatible_ops__ = defaultdict(bool)
    warnings.filterwarnings("ignore", ".*all_gather_into_tensor.* is deprecated", FutureWarning)  # DeepSpeed's own call
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,  # where it is missing, DeepSpeed clips at 1
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**62,
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": False,
            "contiguous_gradients": True,
            "reduce_scatter": True,
            "reduce_bucket_size": BUCKET_ELEMENTS,
            "allgather_bucket_size": BUCKET_ELEMENTS,
            "compute_grad_norm": False,  # the engine takes the norm itself, without waiting for the device
        },
    }
    return DeepSpeedPlugin(hf_ds_config=config)
