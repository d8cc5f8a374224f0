"""Minibatch standard deviation (Karras et al. 2018, arXiv:1710.10196, section 3), over a set number of images.

Departs from the released StyleGAN2: groups are contiguous, not strided, so that real and generated images that are
judged in one forward never mix, and one group may be spread over ranks.
"""

# Axes: N images, G groups, B images of a group, F statistics, C channels, M = positions and channels of a statistic

import torch
from torch import Tensor, nn

from bigtrain.networks.layers.precision import at_least_float32, full_precision
from bigtrain.networks.layers.running import BatchStatistics

STD_EPS = 1e-8  # added to variances


class MinibatchStd(nn.Module):
    """Adds `channels` constant channels that tell how much the images of a group differ.

    Channels are cut into `channels` parts; each statistic is the standard deviation over the group's images, averaged
    over the part's channels and all positions. What a group is, is the policy's; None: the whole local batch.
    """

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.policy = BatchStatistics()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return [N, C + F, H, W], at least float32; C is a multiple of F."""
        with full_precision(x_NCHW):
            x_NCHW = at_least_float32(x_NCHW)
            num_images, _, height, width = x_NCHW.shape
            share = self._local_share(num_images)
            x_GBFM = x_NCHW.reshape(num_images // share, share, self.channels, -1)
            std_GFM = (self._variance(x_GBFM) + STD_EPS).sqrt()
            statistic_N1 = std_GFM.mean(2).repeat_interleave(share, 0)
            return torch.cat((x_NCHW, statistic_N1[:, :, None, None].expand(-1, -1, height, width)), 1)

    def _local_share(self, local_images: int) -> int:
        """Return how many images of a group are in the local batch; in eval mode all of them are."""
        group_images = self.policy.group_images
        if group_images is None:
            return local_images
        if not self.training:  # a look at some images, on one rank
            return local_images if local_images % group_images else group_images
        share = group_images // self.policy.ranks
        assert local_images % share == 0, f"{local_images} images do not make shares of {share}"
        return share

    def _variance(self, x_GBFM: Tensor) -> Tensor:
        """Return the biased variance over a group's images, [G, F, M]."""
        reduce, ranks = self.policy.reduce, self.policy.ranks
        if reduce is None or not self.training:
            return x_GBFM.var(1, correction=0)
        # Two reductions: in one, the second moment less the squared mean would cancel where images are nearly equal.
        mean_GFM = reduce(x_GBFM.mean(1)) / ranks
        return reduce((x_GBFM - mean_GFM.unsqueeze(1)).square().mean(1)) / ranks


def _layers(network: nn.Module) -> list[MinibatchStd]:
    return [module for module in network.modules() if isinstance(module, MinibatchStd)]


def has_minibatch_std(network: nn.Module) -> bool:
    """Return whether the network compares images of a batch."""
    return bool(_layers(network))


def set_minibatch_std(network: nn.Module, policy: BatchStatistics) -> None:
    """Hand `policy` to every minibatch standard deviation of the network."""
    for layer in _layers(network):
        layer.policy = policy
