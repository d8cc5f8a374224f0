"""The search finds a generator's own images again, the same way each time, and leaves the model as it was."""

import math
from pathlib import Path

import pytest
import torch

import bigtrain
from bigtrain.draws import Draws
from bigtrain.evaluation.projection.compare import area_under_curve
from bigtrain.evaluation.projection.distance import distance_of
from bigtrain.evaluation.projection.search import Projector, learning_rate, wandering
from bigtrain.evaluation.projection.settings import ProjectionSettings
from bigtrain.evaluation.projection.spaces import StyleSpace, autocorrelation, style_center
from bigtrain.evaluation.projection.targets import Targets
from bigtrain.networks.layers.modulated import StyledConv2d
from bigtrain.recipe.errors import DivergenceError, UsageError
from bigtrain.sampling.truncation import Truncation
from bigtrain.training.codes import STYLE
from bigtrain.training.sampler import StandingSettings

QUICK = {"steps": 60, "average_samples": 200, "start_images": 80, "starts": 2}
SPACES = [("biggan", "z"), ("stylegan2", "w"), ("stylegan2", "w+"), ("stylegan2", "z")]


def load(run: Path):
    model = bigtrain.load(run)
    model.restand(Truncation(), StandingSettings(1, 16))
    return model


def found_by(model, space: str, **more):
    """Project two images of the model and return what was found, and the projector."""
    settings = ProjectionSettings(space=space, **{**QUICK, **more})
    projector = Projector(model, distance_of("discriminator", model), settings)
    image_NCHW = model.render(model.codes([3, 4], labels=[1, 7], seed=5))
    return projector(Targets(image_NCHW, ("a", "b"))), projector


@pytest.mark.parametrize(("kind", "space"), SPACES)
def test_own_images_are_found_again(toy_runs: dict[str, Path], kind: str, space: str):
    model = load(toy_runs[kind])
    several = {} if kind == "stylegan2" else {"steps": 200, "starts": 8, "start_images": 160}
    found, projector = found_by(model, space, **several)
    assert (found.distance_N < 0.3 * found.start_distance_N).all(), (found.distance_N, found.start_distance_N)
    embedded = projector.distance.embed(found.image_NCHW.float() / 127.5 - 1)
    target = projector.distance.embed(found.targets.image_NCHW.float() / 127.5 - 1)
    from_other = (embedded - target.flip(0)).square().sum(1)
    assert (found.distance_N < 0.3 * from_other).all(), (found.distance_N, from_other)
    if kind == "biggan":
        assert found.extra["label"].tolist() == [1, 7]
        assert (found.pixel_rms_N < 5).all()


@pytest.mark.parametrize(("kind", "space"), SPACES[:2])
def test_the_same_seed_finds_the_same_and_another_one_another(toy_runs: dict[str, Path], kind: str, space: str):
    first, again, other = (found_by(load(toy_runs[kind]), space, steps=8, seed=seed)[0] for seed in (0, 0, 1))
    for name, part in first.codes.parts.items():
        assert torch.equal(part, again.codes.parts[name])
    assert torch.equal(first.image_NCHW, again.image_NCHW)
    assert not torch.equal(first.distance_N, other.distance_N)


def test_the_model_keeps_its_noise_and_w_has_one_style(toy_runs: dict[str, Path]):
    model = load(toy_runs["stylegan2"])
    before = model.render(model.codes([0, 1]))
    found, _ = found_by(model, "w", steps=8)
    assert torch.equal(model.render(model.codes([0, 1])), before)
    style_NLW = found.codes.parts[STYLE]
    assert torch.equal(style_NLW, style_NLW[:, :1].expand_as(style_NLW))
    assert len(found.extra) == 7  # one map for each convolution of 32 px
    for map_N1HW in found.extra.values():
        assert map_N1HW.shape[:2] == (2, 1)
        assert torch.allclose(map_N1HW.mean((1, 2, 3)), torch.zeros(2), atol=1e-5)
        assert torch.allclose(map_N1HW.square().mean((1, 2, 3)), torch.ones(2), atol=1e-4)
    without, _ = found_by(model, "w", steps=8, noise_maps=False)
    assert without.extra == {}
    assert (model.render(without.codes).int() - without.image_NCHW.int()).abs().max() <= 1
    layers, _ = found_by(model, "w+", steps=8)
    assert not torch.equal(layers.codes.parts[STYLE][:, 0], layers.codes.parts[STYLE][:, 1])


def test_noise_maps_start_from_other_noise_than_the_generators_own(toy_runs: dict[str, Path]):
    model = load(toy_runs["stylegan2"])
    settings = ProjectionSettings(space="w")
    draws = Draws(0, 0, -1, 0, torch.arange(2))
    space = StyleSpace(model, (torch.zeros(6), 1.0), draws, settings)
    own = {name: layer.noise_const for name, layer in model.generator.named_modules() if hasattr(layer, "noise_const")}
    for name, map_N1HW in space.maps.items():
        const_HW = own[name.removeprefix("noise/")]
        for map_HW in map_N1HW[:, 0].detach():
            assert abs(torch.corrcoef(torch.stack((map_HW.flatten(), const_HW.flatten())))[0, 1]) < 0.9
        assert not torch.equal(map_N1HW[0], map_N1HW[1])


def test_each_image_has_the_noise_of_its_own_map(toy_runs: dict[str, Path]):
    model = load(toy_runs["stylegan2"])
    convolution = next(layer for layer in model.generator.modules() if isinstance(layer, StyledConv2d))
    convolution.noise_strength.data.fill_(0.5)
    torch.manual_seed(0)
    image_NCHW, style_NW = torch.randn(2, convolution.weight.shape[1], 4, 4), torch.randn(2, 6)
    maps = torch.randn(2, 1, 4, 4)
    expected = []
    for number in range(2):
        convolution.noise_const = maps[number, 0]
        expected.append(convolution(image_NCHW[[number]], style_NW[[number]], "const"))
    convolution.noise_const = maps
    assert torch.allclose(convolution(image_NCHW, style_NW, "const"), torch.cat(expected), atol=1e-6)
    assert not torch.allclose(expected[0], convolution(image_NCHW[:1], style_NW[:1], "none"))


def test_latents_that_were_found_make_the_image_and_a_given_class_stays(toy_runs: dict[str, Path]):
    model = load(toy_runs["biggan"])
    found, _ = found_by(model, "z", steps=8)
    assert (model.render(found.codes).int() - found.image_NCHW.int()).abs().max() <= 1
    projector = Projector(model, distance_of("pixels", model), ProjectionSettings(**{**QUICK, "steps": 4}), label=6)
    assert projector(found.targets).extra["label"].tolist() == [6, 6]


def test_styles_are_refused_where_there_are_none(toy_runs: dict[str, Path]):
    with pytest.raises(UsageError, match="has no styles"):
        found_by(load(toy_runs["biggan"]), "w")


def test_a_search_that_explodes_is_said(toy_runs: dict[str, Path]):
    with pytest.raises(DivergenceError, match="lower it"):
        found_by(load(toy_runs["biggan"]), "z", steps=3, learning_rate=1e30)


def test_the_learning_rate_rises_and_falls_and_the_wandering_dies_out():
    settings = ProjectionSettings()
    rates = [learning_rate(settings, share) for share in (0, 0.025, 0.05, 0.75, 0.875, 1)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.1, 0.05, 0])
    assert [wandering(settings, share) for share in (0, 0.375, 0.75, 1)] == pytest.approx([0.05, 0.0125, 0, 0])
    assert wandering(ProjectionSettings(wander_share=0), 0) == 0


def test_noise_of_neighbours_that_agree_is_penalised():
    flat = torch.ones(1, 1, 16, 16)  # neighbours' mean product 1 in two directions, then 4 at 8 px
    assert autocorrelation(flat).tolist() == [2 * 1 + 2 * 16]
    torch.manual_seed(0)
    assert autocorrelation(torch.randn(4, 1, 64, 64)).max() < 0.2
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)[None, None]
    assert autocorrelation(board).tolist() == [2]  # 4 px: one level


def test_the_center_is_the_mean_of_many_styles(toy_runs: dict[str, Path]):
    model = load(toy_runs["stylegan2"])
    mean_W, deviation = style_center(model, 3, ProjectionSettings(average_samples=1500))
    style_NW = model.codes(range(1500), labels=[3] * 1500, seed=9).parts[STYLE][:, 0]
    expected = (style_NW - style_NW.mean(0)).square().sum(1).mean().sqrt()
    assert deviation == pytest.approx(float(expected), rel=0.1)
    assert (mean_W - style_NW.mean(0)).norm() < 5 * expected / math.sqrt(1500) * math.sqrt(2)


def test_the_area_under_the_curve_counts_pairs():
    generated, real = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0, 0.0])
    assert area_under_curve(generated, real) == pytest.approx((1 + 1 + 0 + 0.5 + 1 + 0) / 6)
    assert area_under_curve(generated, generated + 5) == 1
    assert area_under_curve(generated, generated) == 0.5
