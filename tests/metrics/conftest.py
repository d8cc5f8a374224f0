"""The digits as metrics see real images, and one classifier of them, trained once for all tests."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from bigtrain.metrics.exchange import ONE_PROCESS
from bigtrain.metrics.extractors.classifier import ClassifierSettings
from bigtrain.metrics.features import Extractor, RealImages
from bigtrain.recipe.image import ImageSpec

INCEPTION_SCALE = 0.4
LAST_INCEPTION_LAYERS = (
    *("branch1x1", "branch3x3_2a", "branch3x3_2b", "branch3x3dbl_3a", "branch3x3dbl_3b"),
    "branch_pool",
)


def real_images(image_NCHW: Tensor, label_N: Tensor, content_hash: str) -> RealImages:
    """Wrap tensors as real images; `load` counts nothing and copies."""

    def load(numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        return image_NCHW[list(numbers)], label_N[list(numbers)]

    _, channels, side, _ = image_NCHW.shape
    return RealImages(ImageSpec(side, channels, int(label_N.max()) + 1), len(image_NCHW), content_hash, load)


@pytest.fixture(scope="session")
def digits() -> RealImages:
    """The 1,797 digits of scikit-learn, gray, 32 px."""
    bunch = load_digits()
    small = torch.tensor(bunch.images, dtype=torch.float32)[:, None] * (255 / 16)
    image = torch.nn.functional.interpolate(small, size=(32, 32), mode="bicubic").round().clamp(0, 255).to(torch.uint8)
    return real_images(image, torch.tensor(bunch.target), "digits")


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that outlives one test."""
    return tmp_path_factory.mktemp("metrics-cache")


@pytest.fixture(scope="session")
def classifier(digits: RealImages, shared_cache: Path) -> Extractor:
    """The default classifier of the digits."""
    return ClassifierSettings().build(digits, shared_cache, torch.device("cpu"), ONE_PROCESS)


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of seeded random weights of torch-fidelity's Inception: BatchNorm's statistics are those of some images,
    so that images differ in its features, and the last layers are scaled to features of a usual size."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save({}, path)
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None  # torch's word for a plain average
        with torch.no_grad():
            network.train()((255 * torch.rand(6, 3, 5, 5)).to(torch.uint8))
            for name in LAST_INCEPTION_LAYERS:
                norm = network.Mixed_7c.get_submodule(name).bn
                norm.weight.mul_(INCEPTION_SCALE)
                norm.bias.mul_(INCEPTION_SCALE)
    torch.save(network.state_dict(), path)
    return path
