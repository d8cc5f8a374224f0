"""Inception v3 behind the resize of clean-fid (Parmar et al. 2022, arXiv:2104.11222): bicubic with antialiasing, in
floating point, to 299 pixels.

Departs from clean-fid: torch resizes on the device where Pillow does there; they agree to 0.01 of 255 levels.

Axes: N images, C channels, H height, W width, D features, K logits.
"""

import torch
from torch import Tensor, nn

SIDE = 299
# The layers of torch-fidelity's module in their order: its own forward pass begins with TensorFlow's resize.
TRUNK = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool"),
)


def clean_resize(image_NCHW: Tensor) -> Tensor:
    """Return images of 299 pixels, float32, 0..255, not rounded.

    Args:
        image_NCHW: uint8 or float32 of 0..255.
    """
    resized_NCHW = torch.nn.functional.interpolate(
        image_NCHW.float(), size=(SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False
    )
    return resized_NCHW.clamp(0, 255)


class CleanResized(nn.Module):
    """torch-fidelity's Inception module, fed by `clean_resize`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 [N, 3, H, W] to features, float32 [N, 2048], and unbiased logits, float32 [N, 1008]."""
        x_NCHW = (clean_resize(image_NCHW) - 128) / 128
        for name in TRUNK:
            x_NCHW = getattr(self.module, name)(x_NCHW)
        feature_ND = x_NCHW.flatten(1)
        fully_connected: nn.Linear = self.module.fc  # type: ignore[assignment]
        return feature_ND, feature_ND @ fully_connected.weight.T
