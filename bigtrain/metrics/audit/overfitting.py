"""How far a discriminator has learnt its training images by heart.

The two heuristics of Karras et al. (2020, arXiv:2006.06676, equation 1): r_v, how far held-out images lie on the way
from training to generated ones, 0 where nothing is overfitted and 1 where held-out images look generated; r_t, the mean
sign on training images. `significance.rank_test` says beside them how often a training image gets a larger logit than a
held-out one.

Axes: N training images, M held-out ones, G generated ones.
"""

from torch import Tensor


def way_to_generated(logit_N: Tensor, logit_M: Tensor, logit_G: Tensor) -> float | None:
    """Return r_v = (mean training - mean held-out) / (mean training - mean generated); None where the discriminator
    does not tell training from generated images."""
    training, held_out, generated = (float(logits.double().mean()) for logits in (logit_N, logit_M, logit_G))
    return (training - held_out) / (training - generated) if training > generated else None


def mean_sign(logit_N: Tensor) -> float:
    """Return r_t: the mean sign of the logits, -1..1."""
    return float(logit_N.double().sign().mean())
