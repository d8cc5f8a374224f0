"""What a projection makes small: the distance of images in the features of some network, after LPIPS (Zhang et al.
2018, arXiv:1801.03924): features of several layers, of length 1 at each place, compared place by place.

`lpips` is that of VGG16, as torch-fidelity has it, where its two weight files are at hand; nothing is downloaded.
`discriminator` takes the blocks of the run's own discriminator, each channel with the same weight; it needs a
checkpoint. `pixels` takes the image itself.

Axes: N images, C channels, H height, W width, F features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigtrain.engine.checkpoints.files import read_checkpoint
from bigtrain.evaluation.trained import load_trained
from bigtrain.metrics.weights import LPIPS, VGG16, WeightStore
from bigtrain.recipe.errors import UsageError, WeightsError
from bigtrain.recipe.registry import Registry
from bigtrain.training.loaded import LoadedModel

DISTANCES = Registry("distance")
LPIPS_FILES = (LPIPS, VGG16)
VGG16_PART = "features."  # of the weight file's names
LPIPS_SIDE = 256  # px; larger images are averaged down before, as in Karras et al. 2020, appendix D
LENGTH_EPS = 1e-10  # added to lengths of features
Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Distance:
    """Maps images so that the squared distance of what it returns is that of the images."""

    name: str
    embed: Embed
    """float [N, C, H, W], -1..1 -> float32 [N, F]; differentiable."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else a reader of the figures should know, as JSON values."""


def distance_of(name: str | None, model: LoadedModel, store: WeightStore | None = None) -> Distance:
    """Return the distance of a name; None: `lpips` where its weights are at hand, else `discriminator`.

    Args:
        name: in DISTANCES, or None.
        model: whose images are compared.
        store: where weight files are looked for; None: the usual places.

    Raises:
        RecipeError: there is no such distance.
        UsageError: it cannot be had; the sentence says what is missing.
    """
    store = store or WeightStore(offline=True)
    if name is None:
        is_at_hand = all(store.locate(file) is not None for file in LPIPS_FILES)
        name = "lpips" if is_at_hand and model.image.channels in (1, 3) else "discriminator"
    make: Callable[[LoadedModel, WeightStore], Distance] = DISTANCES.get(name)
    return make(model, store)


@DISTANCES.add("pixels")
def pixels(model: LoadedModel, store: WeightStore) -> Distance:
    """The mean squared difference of pixels, which are -1..1."""
    return Distance("pixels", lambda image_NCHW: image_NCHW.flatten(1) / image_NCHW[0].numel() ** 0.5)


@DISTANCES.add("discriminator")
def discriminator(model: LoadedModel, store: WeightStore) -> Distance:
    """In the outputs of the discriminator's blocks, or in its last features where it has no blocks.

    Raises:
        UsageError: a snapshot, which holds no discriminator, or a game without one.
        CheckpointError: the checkpoint's does not fit.
    """
    if "discriminator" not in model.game.networks:
        raise UsageError(f"{model.path}: this game has no discriminator; add --distance pixels")
    if not model.path.is_dir():
        raise UsageError(
            f"{model.path} is a snapshot, which holds no discriminator to compare images by; name RUN or "
            "RUN/checkpoints/IMAGES, or add --distance pixels"
        )
    network = load_trained(model.game, "discriminator", read_checkpoint(model.path).tensors, model.device)
    return Distance("discriminator", _Blocks(network, model.image.num_classes), {"images_seen": model.images_seen})


class _Blocks:
    """Embeds images by what a discriminator's blocks give out."""

    def __init__(self, network: nn.Module, num_classes: int) -> None:
        self.network, self.num_classes = network, num_classes
        self.blocks = list(getattr(network, "blocks", []))

    def __call__(self, image_NCHW: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        handles = [block.register_forward_hook(lambda _, __, output: outputs.append(output)) for block in self.blocks]
        # Blocks do not read labels; class 0 is what the head is asked about.
        label_N = torch.zeros(len(image_NCHW), dtype=torch.int64, device=image_NCHW.device)
        try:
            _, feature_NF = self.network(image_NCHW, label_N if self.num_classes else None, features=True)
        finally:
            for handle in handles:
                handle.remove()
        layers = [_unit(output_NCHW.float()) for output_NCHW in outputs] or [F.normalize(feature_NF.float(), dim=1)]
        embedded_NF: Tensor = torch.cat(layers, 1) / len(layers) ** 0.5
        return embedded_NF


def _unit(output_NCHW: Tensor) -> Tensor:
    """Return features of length 1 at each place, as [N, F], so scaled that squared distances are means over places."""
    places = output_NCHW.shape[2] * output_NCHW.shape[3]
    feature_NF: Tensor = F.normalize(output_NCHW, dim=1, eps=LENGTH_EPS).flatten(1) / places**0.5
    return feature_NF


@DISTANCES.add("lpips")
def lpips(model: LoadedModel, store: WeightStore) -> Distance:
    """LPIPS with VGG16, through torch-fidelity.

    Raises:
        WeightsError: a weight file is missing, another one, or holds more than plain tensors.
        UsageError: images with an alpha channel.
    """
    missing = [file.name for file in LPIPS_FILES if store.locate(file) is None]
    if missing:
        raise WeightsError(
            f"distance lpips needs {' and '.join(missing)} in one of {', '.join(map(str, store.places()))}; put it "
            "there (`bigtrain weights import FILE`), or use --distance discriminator"
        )
    if model.image.channels not in (1, 3):
        raise UsageError(f"distance lpips reads gray or RGB images, not {model.image.channels} channels")
    found = [store.get(file) for file in LPIPS_FILES]
    facts = {file.name: each.sha256 for file, each in zip(LPIPS_FILES, found, strict=True)}
    module = load_lpips(*(each.path for each in found)).to(model.device)
    return Distance("lpips", _Lpips(module), {"weights": facts})


def load_lpips(linear: Path, vgg16: Path) -> nn.Module:
    """Return torch-fidelity's module with weights of two files, which it would look for in one place only.

    Raises:
        WeightsError: a file is damaged, no file of plain tensors, or of another network.
    """
    # Imported late: they draw in torchvision.
    import torchvision
    from torch_fidelity import sample_similarity_lpips as theirs

    linear_state, vgg16_state = _tensors(linear), _tensors(vgg16)

    def features_only(**_: Any) -> SimpleNamespace:
        with torch.device("meta"):  # the classifier, nine tenths of the weights, is not needed
            features = torchvision.models.vgg16(weights=None, init_weights=False).features
        state = {key[len(VGG16_PART) :]: vgg16_state[key] for key in vgg16_state if key.startswith(VGG16_PART)}
        features.load_state_dict(state, assign=True)
        return SimpleNamespace(features=features)

    before = theirs.load_state_dict_from_url, theirs.torchvision_load_pretrained_vgg16
    theirs.load_state_dict_from_url = lambda *_, **__: linear_state
    theirs.torchvision_load_pretrained_vgg16 = features_only
    try:
        return theirs.SampleSimilarityLPIPS("lpips-vgg16")  # type: ignore[no-any-return]
    except RuntimeError as error:
        raise WeightsError(f"{linear} and {vgg16} are not LPIPS's weights ({error}); fetch them again") from error
    finally:
        theirs.load_state_dict_from_url, theirs.torchvision_load_pretrained_vgg16 = before


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, pickle, RuntimeError, OSError: all say that it is no such file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"{path} cannot be read ({reason}); fetch it again") from error
    return state


class _Lpips:
    """Embeds images so that squared distances are torch-fidelity's LPIPS."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, image_NCHW: Tensor) -> Tensor:
        if min(image_NCHW.shape[2:]) > LPIPS_SIDE:
            image_NCHW = F.interpolate(image_NCHW, (LPIPS_SIDE, LPIPS_SIDE), mode="area")
        levels_NCHW = (image_NCHW.expand(-1, 3, -1, -1) + 1) * 127.5
        outputs = self.module.net(self.module.normalize(levels_NCHW))
        layers = []
        for output_NCHW, linear in zip(outputs, self.module.lins, strict=True):
            weight_1C11 = linear.model[-1].weight  # not negative: the weight of each channel's squared difference
            length_N1HW = output_NCHW.square().sum(1, keepdim=True).sqrt() + LENGTH_EPS
            places = output_NCHW.shape[2] * output_NCHW.shape[3]
            layers.append((output_NCHW / length_N1HW * weight_1C11.clamp(min=0).sqrt()).flatten(1) / places**0.5)
        return torch.cat(layers, 1)
