"""DINOv2 and VGG16 from files of seeded random weights, in small sizes of the same architecture."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from bigtrain.metrics.exchange import ONE_PROCESS
from bigtrain.metrics.extractors.dinov2 import Dinov2Settings
from bigtrain.metrics.extractors.vgg16 import Vgg16Settings
from bigtrain.metrics.features import EXTRACTORS, Extractor, RealImages
from bigtrain.metrics.weights import WeightStore
from bigtrain.recipe.errors import RecipeError, WeightsError
from bigtrain.recipe.image import ImageSpec

CPU = torch.device("cpu")
NOWHERE = WeightStore(offline=True, environment={})


def real_of(channels: int) -> RealImages:
    image = torch.zeros(4, channels, 32, 32, dtype=torch.uint8)
    return RealImages(ImageSpec(32, channels, 0), 4, "x", lambda numbers: (image[list(numbers)], torch.zeros(4).long()))


def pictures(channels: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (2, channels, 32, 32), dtype=torch.uint8, generator=generator)


def build(settings: Any, channels: int = 3) -> Extractor:
    return settings.build(real_of(channels), Path("/nowhere"), CPU, ONE_PROCESS, NOWHERE)


def small_dinov2(folder: Path, **changes: Any) -> Any:
    """transformers' network in a small size with random weights, and a file of them."""
    from transformers import Dinov2Config, Dinov2Model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {
            "hidden_size": 128,
            "num_attention_heads": 2,
            "num_hidden_layers": 3,
            "image_size": 518,
            "patch_size": 14,
        }
        model = Dinov2Model(Dinov2Config(**sizes, **changes)).eval()
    save_file(model.state_dict(), folder / "dinov2-large.safetensors")
    return model


@pytest.mark.parametrize("use_swiglu_ffn", [False, True], ids=["mlp", "swiglu"])
def test_dinov2_is_transformers_class_token_of_the_resized_image(tmp_path: Path, use_swiglu_ffn: bool):
    theirs = small_dinov2(tmp_path, use_swiglu_ffn=use_swiglu_ffn)
    ours = build(Dinov2Settings(weights=str(tmp_path)))
    assert (ours.figure_prefix, ours.kernel_prefix, ours.dims) == ("fd_dinov2", "kd_dinov2", 128)
    image = torch.nn.functional.interpolate(pictures(3).float(), (224, 224), mode="bicubic", antialias=True) / 255
    mean, deviation = (torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        expected = theirs((image - mean) / deviation).last_hidden_state[:, 0]
    assert torch.allclose(ours(pictures(3)), expected, atol=1e-5)
    assert ours(pictures(3)).std() > 0.1
    assert ours.facts["weights"] == "unverified"
    assert "224" in ours.facts["resize"]
    gray = pictures(1)
    assert torch.equal(ours(gray), ours(gray.expand(-1, 3, -1, -1).contiguous()))


def test_dinov2_of_another_network_is_refused(tmp_path: Path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="weights of dinov2: .*other.safetensors .* cannot be read"):
        build(Dinov2Settings(weights=str(tmp_path / "other.safetensors")))
    (tmp_path / "text.safetensors").write_text("no weights at all")
    with pytest.raises(WeightsError, match="cannot be read"):
        build(Dinov2Settings(weights=str(tmp_path / "text.safetensors")))


@pytest.fixture
def small_vgg16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's VGG with few channels in the place of VGG16 (whose file has 528 MiB), and a file of its weights."""

    def make(*arguments: Any, **keys: Any) -> torch.nn.Module:
        layers = torchvision.models.vgg.make_layers([4, "M", 8, "M", 8, "M", 8, "M", 8, "M"])
        network = torchvision.models.VGG(layers, num_classes=5)
        network.classifier = torch.nn.Sequential(
            torch.nn.Linear(8 * 49, 32), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(32, 16), torch.nn.ReLU(),
            torch.nn.Dropout(), torch.nn.Linear(16, 5),
        )  # fmt: skip
        return network

    monkeypatch.setattr(torchvision.models, "vgg16", make)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(make().state_dict(), tmp_path / "vgg16.pth")
    return tmp_path / "vgg16.pth"


def test_vgg16_is_torch_fidelitys(small_vgg16: Path):
    from torch_fidelity.utils import create_feature_extractor

    theirs = create_feature_extractor(
        "vgg16", ["fc2_relu"], cuda=False, verbose=False, feature_extractor_weights_path=str(small_vgg16)
    )
    ours = build(Vgg16Settings(weights=str(small_vgg16)))
    assert (ours.figure_prefix, ours.dims) == ("fd_vgg16", 16)
    assert torch.equal(ours(pictures(3)), theirs(pictures(3))[0])
    assert ours(pictures(3)).std() > 0
    assert ours.facts["weights"].startswith("custom ")


@pytest.mark.parametrize("kind", ["dinov2", "vgg16"])
def test_missing_weights_are_a_sentence(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=f"weights of {kind}: {kind}-.* is not in .*--offline forbids"):
        build(EXTRACTORS.get(kind)())


@pytest.mark.parametrize("kind", ["dinov2", "vgg16"])
def test_images_with_alpha_are_refused(kind: str):
    with pytest.raises(RecipeError, match="gray or RGB images, and the shards have 4 channels"):
        build(EXTRACTORS.get(kind)(), channels=4)
