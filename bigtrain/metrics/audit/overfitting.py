"""How far a discriminator has learnt its training images by heart.

The two heuristics of Karras et al. (2020, arXiv:2006.06676, equation 1): r_v, how far held-out images lie on the way
from training to generated ones, 0 where nothing is overfitted and 1 where held-out images look generated; r_t, the mean
sign on training images. `significance.rank_test` says beside them how often a training image gets a larger logit than a
held-out one.

Departs from the paper: where there are classes, outputs are reckoned from the mean output on generated images of the
same class. A conditional discriminator may put whole classes higher than others (a relativistic one is free to), and a
held-out part has other shares of the classes than the training part.

Axes: N images (training ones, beside others), M held-out images, G generated ones, K classes.
"""

import torch
from torch import Tensor


def above_generated(logit_N: Tensor, label_N: Tensor, generated_G: Tensor, label_G: Tensor) -> Tensor:
    """Return by how much each logit lies above the mean one of generated images of its class.

    Images of a class that no generated image has are left out.

    Args:
        logit_N: of any images.
        label_N: int64, their classes; all equal where there are none.
        generated_G: logits of generated images.
        label_G: int64, their classes.
    """
    classes_K, place_G, count_K = torch.unique(label_G, return_inverse=True, return_counts=True)
    mean_K = torch.zeros(len(classes_K), dtype=torch.float64).index_add_(0, place_G, generated_G.double()) / count_K
    place_N = torch.searchsorted(classes_K, label_N).clamp_max(len(classes_K) - 1)
    is_known_N = classes_K[place_N] == label_N
    above_N: Tensor = logit_N.double() - mean_K[place_N]
    return above_N[is_known_N]


def way_to_generated(logit_N: Tensor, logit_M: Tensor, logit_G: Tensor) -> float | None:
    """Return r_v = (mean training - mean held-out) / (mean training - mean generated); None where the discriminator
    does not tell training from generated images."""
    training, held_out, generated = (float(logits.double().mean()) for logits in (logit_N, logit_M, logit_G))
    return (training - held_out) / (training - generated) if training > generated else None


def mean_sign(logit_N: Tensor) -> float:
    """Return r_t: the mean sign of the logits, -1..1."""
    return float(logit_N.double().sign().mean())
