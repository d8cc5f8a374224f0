"""Distances: numbers by hand, agreement with torch-fidelity, and sentences where something is missing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

import bigtrain
from bigtrain.evaluation.projection import distance as distances
from bigtrain.evaluation.projection.distance import Distance, _Blocks, distance_of, load_lpips
from bigtrain.metrics.weights import LPIPS, VGG16, WeightStore
from bigtrain.recipe.errors import RecipeError, UsageError, WeightsError
from tests.evaluation.toy_models import write_toy_snapshot

LPIPS_CHANNELS = (64, 128, 256, 512, 512)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weight files of LPIPS with seeded random weights."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    linear = {f"lin{number}.model.1.weight": torch.rand(1, size, 1, 1) for number, size in enumerate(LPIPS_CHANNELS)}
    torch.save(linear, folder / LPIPS.name)
    with torch.device("meta"):
        features = torchvision.models.vgg16(weights=None, init_weights=False).features
    state = {f"features.{name}": torch.randn(tensor.shape) * 0.05 for name, tensor in features.state_dict().items()}
    torch.save(state, folder / VGG16.name)
    return folder


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_snapshot(tmp_path_factory.mktemp("toy"), "unconditional")


def squared(distance: Distance, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (distance.embed(first) - distance.embed(second)).square().sum(1)


def test_pixels_are_the_mean_squared_difference(snapshot: Path):
    distance = distance_of("pixels", bigtrain.load(snapshot))
    first, second = torch.zeros(2, 1, 32, 32), torch.zeros(2, 1, 32, 32)
    second[1, 0, 0, 0] = 32.0
    assert torch.allclose(squared(distance, first, second), torch.tensor([0.0, 1.0]))


def test_lpips_is_torch_fidelitys(snapshot: Path, weights: Path, monkeypatch: pytest.MonkeyPatch):
    store = WeightStore((weights,), offline=True)
    model = bigtrain.load(snapshot)
    with pytest.raises(WeightsError, match=f"begins with {VGG16.sha256_start}"):
        distance_of(None, model, store)  # random weights under the published name
    monkeypatch.setattr(distances, "LPIPS_FILES", (LPIPS, replace(VGG16, sha256_start="")))
    distance = distance_of(None, model, store)
    assert distance.name == "lpips"
    assert distance.facts["weights"].keys() == {LPIPS.name, VGG16.name}
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2, 3, 1, 32, 32), generator=generator, dtype=torch.uint8)
    ours = squared(distance, *(each.float() / 127.5 - 1 for each in pixels))
    module = load_lpips(weights / LPIPS.name, weights / VGG16.name)
    theirs = module(*(each.expand(-1, 3, -1, -1) for each in pixels))
    assert ours.min() > 0.01
    assert torch.allclose(ours, theirs.flatten(), rtol=1e-4)


def test_weights_that_are_missing_or_run_code_are_refused(snapshot: Path, tmp_path: Path, weights: Path):
    model, store = bigtrain.load(snapshot), WeightStore((tmp_path,), offline=True, environment={})
    with pytest.raises(WeightsError, match="or use --distance discriminator"):
        distance_of("lpips", model, store)
    torch.save(nn.Linear(1, 1), tmp_path / LPIPS.name)  # a pickled object
    with pytest.raises(WeightsError, match=f"{LPIPS.name} cannot be read"):
        load_lpips(tmp_path / LPIPS.name, weights / VGG16.name)
    torch.save({"a": torch.zeros(1)}, tmp_path / LPIPS.name)
    with pytest.raises(WeightsError, match="are not LPIPS's weights"):
        load_lpips(tmp_path / LPIPS.name, weights / VGG16.name)
    with pytest.raises(UsageError, match="a snapshot, which holds no discriminator"):
        distance_of("discriminator", model)
    with pytest.raises(RecipeError, match="did you mean 'pixels'"):
        distance_of("pixel", model)


class TwoBlocks(nn.Module):
    """Blocks that add and double."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Identity(), nn.Upsample(scale_factor=2)])

    def forward(self, image_NCHW, label_N, *, features):
        x_NCHW = image_NCHW
        for block in self.blocks:
            x_NCHW = block(x_NCHW)
        return x_NCHW.mean((1, 2, 3)), x_NCHW.flatten(1)


def test_blocks_are_compared_by_direction_at_each_place():
    embed = _Blocks(TwoBlocks(), 0)
    first = torch.zeros(1, 2, 2, 2)
    first[:, 0] = 3.0
    second = first.clone()
    second[:, :, 0, 0] = torch.tensor([0.0, 5.0])  # at right angles in one of four places: squared distance 2 there
    assert torch.allclose((embed(first) - embed(second)).square().sum(1), torch.tensor([0.5]))
    assert torch.allclose(embed(first), embed(7 * first))


@pytest.mark.parametrize("kind", ["biggan", "stylegan2"])
def test_the_checkpoints_discriminator_is_what_compares(toy_runs: dict[str, Path], kind: str):
    model = bigtrain.load(toy_runs[kind])
    before = {name: tensor.clone() for name, tensor in model.game.networks["discriminator"].state_dict().items()}
    distance = distance_of("discriminator", model)
    after = model.game.networks["discriminator"].state_dict()
    assert any(not torch.equal(after[name], tensor) for name, tensor in before.items())
    torch.manual_seed(0)
    image_NCHW = torch.rand(3, 1, 32, 32) * 2 - 1
    alone = torch.cat([distance.embed(image_NCHW[number : number + 1]) for number in range(3)])
    assert torch.allclose(distance.embed(image_NCHW), alone, atol=1e-5)  # no image depends on its company
    assert squared(distance, image_NCHW[:1], image_NCHW[1:2]) > 0.01
