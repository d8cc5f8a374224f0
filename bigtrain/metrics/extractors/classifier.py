"""An extractor made from the run's own labelled images: a small classifier, trained in seconds, kept by content.

Inception's features mean little on data unlike ImageNet. This extractor learns to tell the run's classes apart (on the
CPU, seeded; from the images that have a label) and compares images by its penultimate features. The trained network is
cached under a hash of the shards' content and of these settings, so one data set has one network on one machine;
figures of two networks with different fingerprints are not comparable.

Axes: N images, C channels, H height, W width, D features, K classes.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bigtrain.draws import seed_of
from bigtrain.metrics.cache import from_bytes, key_of, read_cached, to_bytes, write_cached
from bigtrain.metrics.exchange import Ranks, from_main
from bigtrain.metrics.extractors.classifier_network import ClassifierNetwork, to_small
from bigtrain.metrics.features import EXTRACTORS, Extractor, RealImages, RealSet
from bigtrain.metrics.weights import WeightStore
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.settings import PositiveCount, Settings

FIDELITY_NAME = "bigtrain-classifier"
VERSION = 1  # raise when the network or its training changes: cached ones are then not used
BATCH_IMAGES = 64
LEARNING_RATE = 3e-3  # peak of a one-cycle schedule (Smith and Topin 2018, arXiv:1708.07120)
WEIGHT_DECAY = 1e-2
HELD_OUT_SHARE = 0.1  # judges the classifier, never trains it
FEWEST_IMAGES = 20
NO_LABEL = -1


@EXTRACTORS.add("classifier")
class ClassifierSettings(Settings):
    """Penultimate features of a classifier of the run's own images: `fd_classifier` and `kd_classifier`."""

    kind: Literal["classifier"] = "classifier"
    """Which extractor."""
    dims: int = Field(default=64, ge=2, le=2048)
    """Number of features."""
    width: int = Field(default=32, ge=4, le=512)
    """Channels of the first convolution."""
    shown_images: PositiveCount = 15_000
    """Images shown in training, counted with repetition."""
    max_images: PositiveCount = Field(default=20_000, ge=FEWEST_IMAGES)
    """Most images read from the shards, picked at random."""
    seed: int = 0
    """Seed of the weights, of the images picked and of their order."""

    def build(
        self, real: RealSet, cache: Path, device: torch.device, ranks: Ranks, weights: WeightStore | None = None
    ) -> Extractor:
        """Return the extractor, trained by rank 0 where `cache` does not hold it yet; `weights` are not used.

        Raises:
            RecipeError: the images have no labels, or too few of them.
            DataError: an image cannot be read.
        """
        if not isinstance(real, RealImages):
            raise RecipeError(
                "evaluate.extractor.kind: classifier learns from the real images, and of these only mean and "
                "covariance are known; name the images themselves, or use inception"
            )
        if real.image.num_classes < 2 or real.num_images < FEWEST_IMAGES:
            raise RecipeError(
                f"evaluate.extractor.kind: classifier learns from labels, needs 2 classes and {FEWEST_IMAGES} images; "
                f"the shards have {real.image.num_classes} classes and {real.num_images} images; "
                "use random or inception"
            )
        register_with_torch_fidelity()
        data = from_main(ranks, lambda: self._cached(real, cache))
        return Extractor(
            network=network_from_bytes(data).to(device),
            name=FIDELITY_NAME,
            figure_prefix="fd_classifier",
            kernel_prefix="kd_classifier",
            dims=self.dims,
            fingerprint=hashlib.sha256(data).hexdigest(),
            facts=describe_classifier(data),
            device=device,
            num_logits=real.image.num_classes,
            score_prefix="is_classifier",
        )

    def cache_path(self, real: RealImages, cache: Path) -> Path:
        """Return where the trained network is kept; the file is one that torch-fidelity can be pointed at."""
        facts = {"version": VERSION, "content": real.content_hash, **self.model_dump(mode="json")}
        return cache / "classifiers" / f"{key_of(facts)}.safetensors"

    def _cached(self, real: RealImages, cache: Path) -> bytes:
        path = self.cache_path(real, cache)
        data = read_cached(path)
        if data is None:
            data = train_classifier(self, real)
            write_cached(path, data)
        return data


def train_classifier(settings: ClassifierSettings, real: RealImages) -> bytes:
    """Return a trained network as the bytes of a safetensors file; its metadata holds the held-out accuracy.

    The same images, settings and thread count give the same bytes; no global state is read or left behind.

    Raises:
        RecipeError: too few images have a label.
        DataError: an image cannot be read.
    """
    generator = torch.Generator().manual_seed(seed_of(settings.seed, "classifier"))
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
    ):
        torch.manual_seed(seed_of(settings.seed, "classifier weights"))
        network = ClassifierNetwork(real.image.channels, real.image.num_classes, settings.dims, settings.width)
        picked = torch.randperm(real.num_images, generator=generator)[: settings.max_images]
        small_NCHW, label_N = _read_small(real, picked)
        num_held_out = max(1, int(HELD_OUT_SHARE * len(label_N)))
        shown = (small_NCHW[num_held_out:], label_N[num_held_out:])
        _fit(network, shown, settings.shown_images, generator, real.between)
        _settle(network, small_NCHW[num_held_out:])
        accuracy = _accuracy(network.eval(), small_NCHW[:num_held_out], label_N[:num_held_out])
    facts = {
        "version": VERSION,
        "network": {name: getattr(network, name) for name in ("channels", "num_classes", "dims", "width")},
        "held_out_images": num_held_out,
        "held_out_accuracy": accuracy,
    }
    return to_bytes(network.state_dict(), facts)


def _read_small(real: RealImages, picked: Tensor) -> tuple[Tensor, Tensor]:
    """Return all picked images that have a label, reduced to what the network sees of them, and their labels."""
    # The shards are read in their own order, which is cheap; the order of picking is restored after.
    order = picked.argsort()
    parts = [real.load(part.tolist()) for part in torch.split(picked[order], BATCH_IMAGES)]
    small_NCHW = torch.cat([to_small(image_NCHW.cpu(), real.image.channels) for image_NCHW, _ in parts])
    label_N = torch.cat([label_N.cpu() for _, label_N in parts])
    order = order.argsort()
    order = order[label_N[order] != NO_LABEL]
    if len(order) < FEWEST_IMAGES:
        raise RecipeError(
            f"evaluate.extractor.kind: classifier learns from labels, and of {len(picked)} images only {len(order)} "
            f"have one ({FEWEST_IMAGES} are needed); use random or inception"
        )
    return small_NCHW[order], label_N[order]


def _fit(
    network: ClassifierNetwork,
    shown: tuple[Tensor, Tensor],
    shown_images: int,
    generator: torch.Generator,
    between: Callable[[], None],
) -> None:
    small_NCHW, label_N = shown
    num_steps = -(-shown_images // BATCH_IMAGES)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=num_steps)
    network.train()
    for _ in range(num_steps):
        between()
        pick_N = torch.randint(len(small_NCHW), (BATCH_IMAGES,), generator=generator)
        _, logit_NK = network.from_small(small_NCHW[pick_N])
        optimizer.zero_grad()
        torch.autograd.backward(cross_entropy(logit_NK, label_N[pick_N]))
        optimizer.step()
        schedule.step()


@torch.no_grad()
def _settle(network: ClassifierNetwork, small_NCHW: Tensor) -> None:
    """Replace BatchNorm's moving averages, which lag behind a short training, by plain ones over all it was shown."""
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.reset_running_stats()
            layer.momentum = None  # torch's word for a plain average
    for part_NCHW in torch.split(small_NCHW, BATCH_IMAGES):
        if len(part_NCHW) == BATCH_IMAGES or len(small_NCHW) < BATCH_IMAGES:
            network.from_small(part_NCHW)


@torch.no_grad()
def _accuracy(network: ClassifierNetwork, small_NCHW: Tensor, label_N: Tensor) -> float:
    parts = zip(torch.split(small_NCHW, BATCH_IMAGES), torch.split(label_N, BATCH_IMAGES), strict=True)
    num_right = sum(int((network.from_small(image)[1].argmax(1) == label).sum()) for image, label in parts)
    return num_right / len(label_N)


def network_from_bytes(data: bytes) -> ClassifierNetwork:
    """Return the network in a file that `train_classifier` made, in eval mode, without gradients.

    Raises:
        ValueError: the bytes are no such file.
    """
    tensors, facts = from_bytes(data)
    network = ClassifierNetwork(**facts["network"])
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)


def describe_classifier(data: bytes) -> dict[str, Any]:
    """Return what is known of a trained network: its sizes and its accuracy on images that never trained it."""
    return from_bytes(data)[1]


def register_with_torch_fidelity() -> None:
    """Make torch-fidelity know the extractor "bigtrain-classifier"; further calls do nothing.

    `torch_fidelity.calculate_metrics` then takes `feature_extractor="bigtrain-classifier"` together with
    `feature_extractor_weights_path=FILE`, a file as `ClassifierSettings.cache_path` names it.
    """
    # Imported late: it draws in torchvision, and a recipe is checked without either.
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

    from bigtrain.metrics.extractors.fidelity import FidelityClassifier

    if FIDELITY_NAME not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(FIDELITY_NAME, FidelityClassifier)
