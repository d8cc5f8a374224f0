"""DINOv2 features (Oquab et al. 2023, arXiv:2304.07193), in which distances follow human judgement better than in
Inception's (Stein et al. 2023, arXiv:2306.04675).

The network is transformers' Dinov2Model, its class token after the last normalisation, of images brought to 224 px by
antialiased bicubic interpolation. The weights are one safetensors file, as the authors publish it in transformers'
form; sizes of the network are read off its tensors, so nothing else is needed and nothing is downloaded.

Departs from the authors' own code, whose interpolation of position embeddings adds 0.1 to the scale: transformers'
port does not.

Axes: N images, C channels, H height, W width, D features.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from bigtrain.metrics.exchange import Ranks, from_main
from bigtrain.metrics.extractors.plain import readable
from bigtrain.metrics.features import EXTRACTORS, Extractor, RealSet, require_gray_or_rgb, with_channels
from bigtrain.metrics.weights import DINOV2, WeightStore
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.settings import Settings

NAME = "bigtrain-dinov2"
SIDE = 224  # Stein et al. 2023
MEAN = (0.485, 0.456, 0.406)  # of ImageNet's RGB in 0..1, which DINOv2 was trained with
DEVIATION = (0.229, 0.224, 0.225)
HEAD_DIMS = 64  # numbers an attention head, in all published sizes


@EXTRACTORS.add("dinov2")
class Dinov2Settings(Settings):
    """DINOv2 features: `fd_dinov2` and `kd_dinov2`."""

    kind: Literal["dinov2"] = "dinov2"
    """Which extractor."""
    size: Literal["small", "base", "large", "giant"] = "large"
    """Which network: ViT-S, B, L or g of patches of 14 px; papers use large."""
    weights: str | None = None
    """Path of the weight file, or of a folder that holds it; None: dinov2-SIZE.safetensors, from BIGTRAIN_WEIGHTS or
    torch's cache. It is never downloaded."""

    def build(
        self, real: RealSet, cache: Path, device: torch.device, ranks: Ranks, weights: WeightStore | None = None
    ) -> Extractor:
        """Return the extractor; `cache` is not used.

        Raises:
            WeightsError: the file is missing, damaged, or holds another network.
            RecipeError: images with an alpha channel, or transformers is not installed.
        """
        require_gray_or_rgb(real.image, "dinov2")
        file = DINOV2[self.size]
        found = from_main(ranks, lambda: (weights or WeightStore()).get(file, self.weights))
        with readable(file, found):
            model = network_of(found.path)
        return Extractor(
            network=_ClassToken(model).to(device).eval(),
            name=NAME,
            figure_prefix="fd_dinov2",
            kernel_prefix="kd_dinov2",
            dims=model.config.hidden_size,
            fingerprint=found.sha256,
            facts={
                "layer": "class token",
                "resize": f"bicubic with antialiasing, to {SIDE} px",
                "blocks": model.config.num_hidden_layers,
                **found.facts,
            },
            device=device,
        )


def network_of(path: Path) -> Any:
    """Return transformers' network with the weights of a safetensors file.

    Raises:
        ValueError, KeyError, RuntimeError: the file is none of such a network.
        RecipeError: transformers is not installed.
    """
    # Imported late: seconds, and only this extractor needs it.
    try:
        from transformers import Dinov2Config, Dinov2Model
    except ImportError as error:
        raise RecipeError("evaluate: dinov2 needs transformers; pip install 'bigtrain[dinov2]'") from error
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    model: Any = Dinov2Model(Dinov2Config(**config_of(tensors)))
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)


def config_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the sizes of the network that these tensors are the weights of, under transformers' names.

    Raises:
        KeyError: they are those of another network.
    """
    patch_DCHW = tensors["embeddings.patch_embeddings.projection.weight"]
    hidden, patch = patch_DCHW.shape[0], patch_DCHW.shape[-1]
    num_patches = tensors["embeddings.position_embeddings"].shape[1] - 1
    blocks = {name.split(".")[2] for name in tensors if name.startswith("encoder.layer.")}
    inner = tensors.get("encoder.layer.0.mlp.fc1.weight")
    return {
        "hidden_size": hidden,
        "num_attention_heads": hidden // HEAD_DIMS,
        "num_hidden_layers": len(blocks),
        "patch_size": patch,
        "image_size": patch * round(num_patches**0.5),
        "use_swiglu_ffn": inner is None,
        **({} if inner is None else {"mlp_ratio": inner.shape[0] // hidden}),
    }


class _ClassToken(nn.Module):
    """Pixels to the class token."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        for name, values in (("mean", MEAN), ("deviation", DEVIATION)):
            self.register_buffer(name, 255 * torch.tensor(values)[:, None, None])

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Map uint8 [N, 1 or 3, H, W] to float32 [N, D]."""
        image_NCHW = with_channels(image_NCHW, 3).float()
        image_NCHW = interpolate(image_NCHW, (SIDE, SIDE), mode="bicubic", antialias=True)
        feature_ND: Tensor = self.model((image_NCHW - self.mean) / self.deviation).pooler_output
        return feature_ND
