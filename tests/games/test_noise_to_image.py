"""The noise-to-image game: its turns, its label laws, and what each turn's gradient reaches."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigtrain.data.batch import Batch
from bigtrain.draws import Draws
from bigtrain.games.base import DataFacts, SampleSettings, Turn
from bigtrain.games.noise_to_image import NoiseToImage, NoiseToImageSettings
from bigtrain.networks.biggan import BigGANDiscriminatorSettings, BigGANGeneratorSettings
from bigtrain.networks.stylegan2 import StyleGAN2GeneratorSettings
from bigtrain.networks.stylegan2_discriminator import StyleGAN2DiscriminatorSettings
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.progress import Progress
from bigtrain.sampling.truncation import Truncation

NUM = 6


def game(num_classes: int = 3, **options: Any) -> NoiseToImage:
    torch.manual_seed(0)
    settings = NoiseToImageSettings(
        generator=BigGANGeneratorSettings(width=2, latent_dim=8, shared_dim=4, attention_sides=()),
        discriminator=BigGANDiscriminatorSettings(width=2, attention_sides=()),
        **options,
    )
    counts = (8, 0, 2)[:num_classes] if num_classes else None
    return settings.build(DataFacts(ImageSpec(32, 1, num_classes), counts))


def draws(count: int = NUM) -> Draws:
    return Draws(0, 0, 0, 0, torch.arange(count))


def real() -> Batch:
    return Batch(torch.zeros(NUM, 1, 32, 32), torch.tensor([2, 2, 0, 1, 2, 0]), torch.arange(NUM))


def play(played: NoiseToImage, turn: Turn, batch: Batch | None) -> Any:
    return played.loss(turn, played.networks, batch, draws(), Progress())


@pytest.mark.parametrize(
    ("options", "reads"),
    [
        ({}, ["next", "none"]),
        ({"discriminator_turns": 3}, ["next", "next", "next", "none"]),
        ({"fake_labels": "batch"}, ["next", "same"]),
        ({"objective": "relativistic"}, ["next", "next"]),
    ],
)
def test_turns_read_what_their_losses_need(options: dict[str, Any], reads: list[str]) -> None:
    turns = game(**options).turns(Progress())
    assert [turn.reads for turn in turns] == reads
    assert [turn.player for turn in turns] == ["discriminator"] * (len(reads) - 1) + ["generator"]


def test_uniform_labels_ignore_the_data_and_empirical_ones_follow_it() -> None:
    uniform = torch.bincount(game().fake_labels(draws(3000)), minlength=3)
    empirical = torch.bincount(game(fake_labels="empirical").fake_labels(draws(3000)), minlength=3)
    assert uniform.min() > 900
    assert empirical[1] == 0
    assert abs(empirical[0].item() - 2400) < 110


def test_batch_labels_are_those_of_the_real_images() -> None:
    assert torch.equal(game(fake_labels="batch").fake_labels(draws(), real()), real().label_N)


def test_hinge_losses_by_hand() -> None:
    played = game()

    class Constant(nn.Module):
        def forward(self, image_NCHW: Tensor, label_N: Tensor) -> Tensor:
            return image_NCHW.mean((1, 2, 3)) * 0 + label_N.double()  # the logit is the label

    played.networks["discriminator"] = Constant()
    fake_N = played.fake_labels(draws()).double()
    discriminator = play(played, Turn("discriminator", reads="next"), real())
    expected = torch.relu(1 - real().label_N.double()).mean() + torch.relu(1 + fake_N).mean()
    assert discriminator.value.item() == pytest.approx(expected.item())
    assert discriminator.stats["sign_real"].item() == pytest.approx(4 / 6)
    assert play(played, Turn("generator"), None).value.item() == pytest.approx(-fake_N.mean().item())


@pytest.mark.parametrize("objective", ["hinge", "relativistic"])
@pytest.mark.parametrize(("player", "other"), [("discriminator", "generator"), ("generator", "discriminator")])
def test_a_turn_gives_gradients_to_its_player(player: str, other: str, objective: str) -> None:
    played = game(objective=objective)
    played.networks[other].requires_grad_(False)
    play(played, Turn(player), real()).value.backward()
    assert all(parameter.grad is not None for parameter in played.networks[player].parameters())
    assert all(parameter.grad is None for parameter in played.networks[other].parameters())


def test_real_and_fake_in_one_forward_equal_two_forwards() -> None:
    played = game()
    together = play(played, Turn("discriminator"), real()).value
    played._judges_together = False
    apart = play(played, Turn("discriminator"), real()).value
    assert together.item() == pytest.approx(apart.item(), rel=1e-5)


def test_unconditional_images_need_no_labels() -> None:
    played = game(num_classes=0)
    assert played.fake_labels(draws()) is None
    play(played, Turn("discriminator", reads="next"), real()).value.backward()
    images = played.sample(played.networks, draws(), SampleSettings(Truncation()))
    assert images.shape == (NUM, 1, 32, 32)
    assert images.abs().max() <= 1


def style_game() -> NoiseToImage:
    """Images of 16 px: one convolution at 4 px, two at 8 and 16 px each, and the last output read 6 styles."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"channel_base": 64, "channel_max": 8, "mapping_layers": 2}
    settings = NoiseToImageSettings(
        generator=StyleGAN2GeneratorSettings(**small, latent_dim=6, style_dim=6),
        discriminator=StyleGAN2DiscriminatorSettings(**small),
    )
    played = settings.build(DataFacts(ImageSpec(16, 1, 0), None))
    played.networks["generator"].eval()
    return played


def test_no_more_styles_are_truncated_than_the_generator_has() -> None:
    played = style_game()

    def images(truncation: str) -> Tensor:
        return played.sample(played.networks, draws(), SampleSettings(Truncation.parse(truncation)))

    assert torch.equal(images("psi:0.5:6"), images("psi:0.5"))
    assert not torch.equal(images("psi:0.5:5"), images("psi:0.5"))
    with pytest.raises(RecipeError) as raised:
        images("psi:0.5:7")
    assert str(raised.value) == (
        "truncation 'psi:0.5:7' is for 7 style layers, but this generator has 6 styles; write at most 'psi:0.5:6', or "
        "'psi:0.5' for all"
    )


def test_styles_are_truncated_where_there_are_some() -> None:
    played = game()
    with pytest.raises(RecipeError, match=r"truncation 'psi:0.5:2': this generator has no styles; use resample:0.5"):
        played.sample(played.networks, draws(), SampleSettings(Truncation.parse("psi:0.5:2")))
