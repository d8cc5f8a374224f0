"""Penalties of the noise-to-image game: when they are due, what they weigh, what they remember."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bigtrain.data.batch import Batch
from bigtrain.draws import Draws
from bigtrain.games.base import DataFacts, Turn
from bigtrain.games.noise_to_image import NoiseToImage, NoiseToImageSettings
from bigtrain.games.penalties.orthogonal import regularised_weights
from bigtrain.losses.orthogonal import orthogonal_penalty
from bigtrain.losses.penalties import consistency, gradient_penalty, gradient_square, lecam, path_lengths
from bigtrain.networks.layers.minibatch_std import set_minibatch_std
from bigtrain.networks.layers.running import BatchStatistics
from bigtrain.networks.registry import DISCRIMINATORS, GENERATORS
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.progress import Progress

NUM = 4
SIDE = 16
STYLEGAN2: dict[str, dict[str, Any]] = {
    "generator": {"channel_base": 64, "channel_max": 8, "latent_dim": 6, "style_dim": 6, "mapping_layers": 2},
    "discriminator": {"channel_base": 64, "channel_max": 8, "mapping_layers": 2},
}
BIGGAN: dict[str, dict[str, Any]] = {
    "generator": {"width": 2, "latent_dim": 8, "shared_dim": 4, "attention_sides": ()},
    "discriminator": {"width": 2, "attention_sides": ()},
}
D_MAIN, G_MAIN = Turn("discriminator", reads="next"), Turn("generator")


def game(kind: str = "stylegan2", num_classes: int = 3, **options: Any) -> NoiseToImage:
    torch.manual_seed(0)
    sides = {"stylegan2": STYLEGAN2, "biggan": BIGGAN}[kind]
    settings = NoiseToImageSettings(
        generator=GENERATORS.get(kind)(**sides["generator"], **({"noise": "const"} if kind == "stylegan2" else {})),
        discriminator=DISCRIMINATORS.get(kind)(**sides["discriminator"]),
        objective="non_saturating",
        **options,
    )
    side = SIDE if kind == "stylegan2" else 32
    built = settings.build(DataFacts(ImageSpec(side, 3, num_classes), batch_images=NUM))
    for network in built.networks.values():
        network.double()
    built.state.double()
    set_minibatch_std(built.networks["discriminator"], BatchStatistics(group_images=2))
    return built


def draws(step: int = 0) -> Draws:
    return Draws(0, 0, step, 0, torch.arange(NUM), torch.float64)


def real(side: int = SIDE) -> Batch:
    image_NCHW = torch.rand(NUM, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    return Batch(image_NCHW, torch.tensor([2, 0, 1, 2]), torch.arange(NUM))


def play(played: NoiseToImage, turn: Turn, batch: Batch | None = None) -> Any:
    return played.loss(turn, played.networks, batch, draws(), Progress())


def judge_real(played: NoiseToImage) -> Any:
    return lambda image_NCHW: played.networks["discriminator"](image_NCHW, real().label_N)


def fakes(played: NoiseToImage) -> tuple[Tensor, Tensor]:
    label_N = played.fake_labels(draws())
    return played.networks["generator"](played.latents(draws()), label_N), label_N


def names_of_steps(played: NoiseToImage, steps: int) -> list[str]:
    return [turn.name for step in range(steps) for turn in played.turns(Progress(steps=step))]


def test_stylegan2_makes_17_discriminator_and_20_generator_steps_in_16_iterations() -> None:
    played = game(penalties={"r1": {"gamma": 1, "every": 16}, "path_length": {"every": 4}})
    names = names_of_steps(played, 16)
    assert names.count("discriminator/main") == names.count("generator/main") == 16
    assert names.count("discriminator/r1") == 1
    assert names.count("generator/path_length") == 4
    assert names[:4] == ["discriminator/main", "discriminator/r1", "generator/main", "generator/path_length"]
    assert played.main_shares == {"discriminator": pytest.approx(16 / 17), "generator": pytest.approx(4 / 5)}
    lazy = played.turns(Progress())[1]
    assert (lazy.reads, lazy.differentiates_twice) == ("same", True)


def test_shares_count_every_main_turn_and_every_lazy_penalty() -> None:
    penalties = {"r1": {"gamma": 1, "every": 16}, "r2": {"gamma": 1, "every": 8}}
    played = game(discriminator_turns=2, penalties=penalties)
    turns = names_of_steps(played, 16)
    main = turns.count("discriminator/main")
    assert played.main_shares["discriminator"] == pytest.approx(main / (len(turns) - 16))
    assert played.main_shares["generator"] == 1


@pytest.mark.parametrize("every", [1, 16])
def test_r1_weighs_half_gamma_and_as_many_times_as_it_is_rare(every: int) -> None:
    played = game(penalties={"r1": {"gamma": 3, "every": every}})
    expected = 1.5 * gradient_square(judge_real(played), real().image_NCHW).square_N.mean()
    if every == 1:
        without = play(game(), D_MAIN, real()).value
        assert play(played, D_MAIN, real()).value.item() == pytest.approx((without + expected).item(), rel=1e-9)
        assert played.turns(Progress())[0].differentiates_twice
    else:
        loss = play(played, Turn("discriminator", "r1", "same"), real())
        assert loss.value.item() == pytest.approx(16 * expected.item(), rel=1e-9)
        assert loss.stats["r1"].item() == pytest.approx(expected.item() / 1.5, rel=1e-9)
        assert not played.turns(Progress())[0].differentiates_twice


def test_r2_and_the_gradient_penalty_look_at_generated_images() -> None:
    played = game(penalties={"r2": {"gamma": 2, "every": 2}, "gradient_penalty": {"weight": 5, "every": 2}})
    fake_NCHW, label_N = fakes(played)
    squares = gradient_square(lambda image: played.networks["discriminator"](image, label_N), fake_NCHW).square_N
    assert play(played, Turn("discriminator", "r2", "same"), real()).value.item() == pytest.approx(
        2 * squares.mean().item(), rel=1e-9
    )
    mix_N = draws().uniform("gradient_penalty/mix", 1)[:, 0]
    expected = gradient_penalty(judge_real(played), real().image_NCHW, fake_NCHW, mix_N).mean()
    loss = play(played, Turn("discriminator", "gradient_penalty", "same"), real())
    assert loss.value.item() == pytest.approx(10 * expected.item(), rel=1e-9)


def test_finite_differences_come_close_and_need_no_double_backward() -> None:
    exact = game(penalties={"r1": {"gamma": 1, "every": 16}})
    other = game(penalties={"r1": {"gamma": 1, "every": 16, "method": "finite_difference", "sigma": 1e-4}})
    turn = Turn("discriminator", "r1", "same")
    estimates = [
        other.loss(turn, other.networks, real(), draws(step), Progress()).stats["r1"].item() for step in range(200)
    ]
    value = play(exact, turn, real()).stats["r1"].item()
    # Of one image the estimate's spread is sqrt(2) times its value; four images, 200 steps: 5% at most, one sigma.
    assert sum(estimates) / 200 == pytest.approx(value, rel=0.2)
    assert not other.turns(Progress())[1].differentiates_twice


def test_path_length_uses_every_second_image_and_the_mean_from_before() -> None:
    played = game(penalties={"path_length": {"every": 4}})
    generator, half = played.networks["generator"], draws().every(2)
    w_NLW = generator.mapping(played.latents(half), played.fake_labels(half))
    noise_NCHW = half.normal("path_length/noise", 3, SIDE, SIDE)
    length_N = path_lengths(generator.synthesis(w_NLW, noise="const"), w_NLW, noise_NCHW)
    turn = Turn("generator", "path_length")
    loss = play(played, turn)
    assert loss.stats["path_length"].item() == pytest.approx(length_N.mean().item(), rel=1e-9)
    assert loss.value.item() == pytest.approx(4 * 2 * length_N.square().mean().item(), rel=1e-9)  # the mean starts at 0
    played.after_turn(turn, loss.stats)
    mean = 0.01 * length_N.mean().item()
    assert played.state.state_dict()["path_length.mean"].item() == pytest.approx(mean, rel=1e-9)
    again = play(played, turn).value.item()
    assert again == pytest.approx(8 * (length_N - mean).square().mean().item(), rel=1e-9)
    assert played.settings.micro_batch_multiple == 2


def test_lecam_draws_logits_to_the_other_sides_mean() -> None:
    played, plain = game(penalties={"lecam": {"weight": 0.3, "decay": 0.9}}), game()
    stats = {"logit_real": torch.tensor(2.0), "logit_fake": torch.tensor(-1.0)}
    played.after_turn(D_MAIN, stats)
    state = played.state.state_dict()
    assert state["lecam.mean_real"].item() == pytest.approx(0.2)
    assert state["lecam.mean_fake"].item() == pytest.approx(-0.1)
    fake_NCHW, label_N = fakes(played)
    logits = judge_real(played)(real().image_NCHW), played.networks["discriminator"](fake_NCHW, label_N)
    term = 0.3 * lecam(*logits, torch.tensor(0.2), torch.tensor(-0.1))
    expected = play(plain, D_MAIN, real()).value + term
    assert play(played, D_MAIN, real()).value.item() == pytest.approx(expected.item(), rel=1e-6)


def test_consistency_compares_with_augmented_images() -> None:
    augment = {"kind": "diffaugment", "policy": ["translation"]}
    played = game(penalties={"consistency": {"weight_real": 2, "weight_fake": 3, "augment": augment}})
    penalty = played.penalties["consistency"]
    drawn = penalty.draw(draws())
    sides = [{k.removeprefix(f"{s}/"): v for k, v in drawn.items() if k.startswith(s)} for s in ("real", "fake")]
    fake_NCHW, label_N = fakes(played)
    expected = play(game(), D_MAIN, real()).value
    for weight, image_NCHW, labels, side in ((2, real().image_NCHW, real().label_N, 0), (3, fake_NCHW, label_N, 1)):
        judge = played.networks["discriminator"]
        moved = penalty.augmentation(image_NCHW, sides[side])
        assert not torch.equal(moved, image_NCHW)
        expected = expected + weight * consistency(judge(image_NCHW, labels), judge(moved, labels))
    assert play(played, D_MAIN, real()).value.item() == pytest.approx(expected.item(), rel=1e-9)


def test_orthogonal_regularisation_of_stylegan2_leaves_embedding_and_constant_out() -> None:
    generator = game().networks["generator"]
    chosen = {id(weight) for weight in regularised_weights(generator)}
    left_out = {name for name, p in generator.named_parameters() if p.dim() >= 2 and id(p) not in chosen}
    assert left_out == {"const", "mapping.embed.weight"}


def test_finite_differences_refuse_batch_normalisation() -> None:
    networks = {"generator": {"kind": "dcgan", "width": 4}, "discriminator": {"kind": "dcgan", "width": 4}}
    penalties = {"r1": {"gamma": 1, "method": "finite_difference"}}
    settings = NoiseToImageSettings.model_validate({**networks, "penalties": penalties})
    with pytest.raises(RecipeError, match=r"game\.penalties\.r1\.method: finite_difference judges"):
        settings.build(DataFacts(ImageSpec(32, 1, 0)))


def test_consistency_never_shows_batch_normalisation_real_and_fake_at_once() -> None:
    sizes: list[int] = []
    networks = {"generator": {"kind": "dcgan", "width": 4}, "discriminator": {"kind": "dcgan", "width": 4}}
    penalties = {"consistency": {"augment": {"kind": "diffaugment"}}}
    settings = NoiseToImageSettings.model_validate({**networks, "penalties": penalties})
    played = settings.build(DataFacts(ImageSpec(32, 3, 0)))
    played.networks["discriminator"].register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    batch = Batch(real(32).image_NCHW.float(), real().label_N, torch.arange(NUM))
    played.loss(D_MAIN, played.networks, batch, Draws(0, 0, 0, 0, torch.arange(NUM)), Progress())
    assert sizes == [NUM] * 4


def test_orthogonal_regularisation_leaves_embeddings_and_vectors_out() -> None:
    played = game("biggan", penalties={"orthogonal": {"weight": 0.01}})
    generator = played.networks["generator"]
    weights = regularised_weights(generator)
    left_out = [name for name, p in generator.named_parameters() if not any(p is weight for weight in weights)]
    assert "shared.weight" in left_out
    assert all("weight" not in name or name == "shared.weight" for name in left_out)
    expected = play(game("biggan"), G_MAIN).value + 0.01 * orthogonal_penalty(weights)
    assert play(played, G_MAIN).value.item() == pytest.approx(expected.item(), rel=1e-9)


def test_penalties_leave_the_reported_loss_alone() -> None:
    plain = play(game(), D_MAIN, real()).stats["loss_discriminator"].item()
    taxed = play(game(penalties={"r1": {"gamma": 9}}), D_MAIN, real()).stats["loss_discriminator"].item()
    assert plain == taxed


def test_only_losses_without_a_double_backward_are_compiled() -> None:
    played = game(penalties={"r1": {"gamma": 1, "every": 16}, "path_length": {"every": 4}})
    compiled: list[str] = []
    played.compile(lambda loss: compiled.append(loss.__name__) or loss)
    assert sorted(compiled) == ["_discriminator_main", "_generator_main"]
    both = game(penalties={"r1": {"gamma": 1}})
    compiled.clear()
    both.compile(lambda loss: compiled.append(loss.__name__) or loss)
    assert compiled == ["_generator_main"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"penalties": {"path_length": {}}}, r"game\.penalties\.path_length: this generator has no styles"),
        ({"style_mixing": 0.9}, r"game\.style_mixing: this generator has no styles"),
        (
            {"augment": {"kind": "ada"}, "penalties": {"consistency": {"augment": {"kind": "diffaugment"}}}},
            r"game\.augment: consistency compares",
        ),
    ],
)
def test_what_needs_styles_is_refused_without_them(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        game("biggan", **options)
