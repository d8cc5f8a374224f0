"""What the benchmarks measure against computes the very numbers that the package's own layers do."""

import pytest
import torch
from torch import Tensor, nn

from benchmarks.reference_forms import average_per_tensor, iterate_per_forward, unfuse_resampling
from benchmarks.reference_stylegan2 import textbook_stylegan2
from benchmarks.steps import biggan, stylegan2
from bigtrain.engine.ema import AverageSettings, WeightAverage
from bigtrain.games.noise_to_image import NoiseToImageSettings
from bigtrain.networks.layers.minibatch_std import set_minibatch_std
from bigtrain.networks.layers.running import BatchStatistics
from bigtrain.recipe.image import ImageSpec

IMAGE = ImageSpec(32, 3, 3)
SMALL = {"stylegan2": {"channel_base": 128, "channel_max": 8}, "biggan": {"width": 2, "attention_sides": []}}
LATENT = {"stylegan2": {"latent_dim": 8, "style_dim": 8, "noise": "const"}, "biggan": {"latent_dim": 8}}


def networks(kind: str) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    settings = NoiseToImageSettings.model_validate(
        {"generator": {"kind": kind, **SMALL[kind], **LATENT[kind]}, "discriminator": {"kind": kind, **SMALL[kind]}}
    )
    built = {player: getattr(settings, player).build(IMAGE).double() for player in ("generator", "discriminator")}
    set_minibatch_std(built["discriminator"], BatchStatistics(2))
    return built


def judged(network: dict[str, nn.Module]) -> tuple[Tensor, list[Tensor]]:
    """Return the logits of generated images and all gradients of their sum of squares."""
    draws = torch.Generator().manual_seed(1)
    latent_NZ = torch.randn(4, 8, generator=draws, dtype=torch.float64)
    label_N = torch.tensor([0, 1, 2, 1])
    logits = network["discriminator"](network["generator"](latent_NZ, label_N), label_N)
    logits.square().sum().backward()
    return logits, [p.grad for each in network.values() for p in each.parameters() if p.grad is not None]


@pytest.mark.parametrize(("kind", "change"), [("stylegan2", textbook_stylegan2), ("biggan", unfuse_resampling)])
def test_textbook_networks_give_the_same_logits_and_gradients(kind, change):
    ours = networks(kind)
    theirs = {name: change(network) for name, network in ours.items()}
    assert {type(m) for m in theirs["generator"].modules()} != {type(m) for m in ours["generator"].modules()}
    (logits, gradients), (expected, expected_gradients) = judged(theirs), judged(ours)
    assert torch.allclose(logits, expected, rtol=1e-9, atol=1e-12)
    # Names differ, so gradients are compared as a set of norms.
    norms, expected_norms = (sorted(float(g.norm()) for g in each) for each in (gradients, expected_gradients))
    assert norms == pytest.approx(expected_norms, rel=1e-8, abs=1e-10)


def test_iterating_per_forward_moves_the_spectral_vectors():
    discriminator = iterate_per_forward(unfuse_resampling(networks("biggan")["discriminator"]))
    before = {name: tensor.clone() for name, tensor in discriminator.state_dict().items() if name.endswith(".u")}
    discriminator(torch.rand(2, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 1]))
    assert any(not torch.equal(before[name], discriminator.state_dict()[name]) for name in before)


def test_both_moving_averages_give_the_same_weights():
    generator = networks("biggan")["generator"]
    ours = WeightAverage(AverageSettings(halflife_images=32), {"generator": generator})
    theirs = WeightAverage(AverageSettings(halflife_images=32), {"generator": generator}).networks["generator"]
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(1)
    ours.update(32, 10**6)  # a half-life: the decay is 1/2
    average_per_tensor(theirs, generator, 0.5)
    pairs = zip(ours.networks["generator"].parameters(), theirs.parameters(), strict=True)
    assert all(torch.allclose(mine, other, rtol=1e-12) for mine, other in pairs)


@pytest.mark.parametrize("case", [stylegan2(64), biggan(64)], ids=lambda case: case.title)
def test_cases_build_what_their_titles_say(case):
    with torch.device("meta"):
        game = case.build(None)
    assert set(game.networks) == {"generator", "discriminator"}
    assert game.networks["generator"].image == case.image
