"""The small convolutional classifier whose penultimate features stand in for Inception's on data unlike ImageNet.

Three strided 3x3 convolutions with BatchNorm (Ioffe and Szegedy 2015, arXiv:1502.03167) on images of at most 32 px, a
linear layer to D features, standardised by BatchNorm without scale: on the training images each feature has mean 0 and
variance 1 (to within batches), which gives distances a unit. Features are taken before the last ReLU, so that none is
constant.

Axes: N images, C channels, H height, W width, D features, K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, relu

from bigtrain.metrics.features import with_channels

MAX_SIDE = 32  # larger images are box-averaged to it
POOLED_SIDE = 4


class ClassifierNetwork(nn.Module):
    """Pixels to (features, logits); remembers what images it was made for."""

    def __init__(self, channels: int, num_classes: int, dims: int, width: int) -> None:
        super().__init__()
        self.channels, self.num_classes, self.dims, self.width = channels, num_classes, dims, width
        sizes = (channels, width, 2 * width, 2 * width)
        self.convs = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
                for a, b in zip(sizes, sizes[1:], strict=False)
            )
        )
        self.to_feature = nn.Linear(2 * width * POOLED_SIDE**2, dims, bias=False)
        self.standardise = nn.BatchNorm1d(dims, affine=False)
        self.to_logit = nn.Linear(dims, num_classes)

    def forward(self, image_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 [N, C, H, W] of any side, gray or colour, to features [N, D] and logits [N, K], float32."""
        return self.from_small(to_small(image_NCHW, self.channels))

    def from_small(self, image_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Map what `to_small` returns to features and logits."""
        hidden = adaptive_avg_pool2d(self.convs(image_NCHW), POOLED_SIDE)
        feature_ND = self.standardise(self.to_feature(hidden.flatten(1)))
        return feature_ND, self.to_logit(relu(feature_ND))


def to_small(image_NCHW: Tensor, channels: int) -> Tensor:
    """Map uint8 pixels to float32 in [-1, 1], box-averaged so that no side exceeds MAX_SIDE."""
    image_NCHW = with_channels(image_NCHW, channels).to(torch.float32) / 127.5 - 1
    height, width = image_NCHW.shape[2:]
    if max(height, width) <= MAX_SIDE:
        return image_NCHW
    return adaptive_avg_pool2d(image_NCHW, (min(height, MAX_SIDE), min(width, MAX_SIDE)))
