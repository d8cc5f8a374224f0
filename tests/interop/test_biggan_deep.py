"""The released BigGAN-deep's numbers: outputs, gradients and BatchNorm statistics agree with the reference tensors."""

import pytest
import torch

from bigtrain.interop import load_released
from bigtrain.interop.biggan_deep import discriminator_rules, generator_rules
from bigtrain.interop.transfer import renamed
from bigtrain.networks.biggan_deep import BigGANDeepDiscriminatorSettings
from bigtrain.recipe.errors import WeightsError
from bigtrain.recipe.image import ImageSpec
from tests.interop.biggan_reference import Reference

AGREEMENT = 1e-5  # 1e-4 is asked for; 3e-6 is what is seen


@pytest.fixture
def reference():
    return Reference("biggan-deep-32", "biggan-deep", generator_rules(2), discriminator_rules(2))


def test_images_agree_in_eval_mode(reference):
    assert reference.image_difference() < AGREEMENT


def test_logits_loss_and_gradients_of_the_discriminator_agree(reference):
    found = reference.discriminator_differences()
    assert len(found) == 3 + 11  # the file has the gradients of 11 tensors of D and 16 of G, to keep it small
    # The gradient of a gain is what attention computes: it counts even where the gain is near 0.
    assert {f"grad.blocks.{index}.2.gamma" for index in range(3)} < set(found)
    assert max(found.values()) < AGREEMENT, found


def test_train_mode_images_gradients_and_statistics_of_the_generator_agree(reference):
    found = reference.generator_differences()
    assert len(found) == 2 + 16 + 2 * (6 * 4 + 1)
    assert "grad.blocks.3.1.gamma" in found
    assert max(found.values()) < AGREEMENT, found


@pytest.mark.parametrize(
    ("rules", "ours", "released"),
    [
        (generator_rules(2), "blocks.3.1.bn2.gain.u", "blocks.7.0.bn2.gain.u0"),
        (generator_rules(2), "attentions.3.theta.weight", "blocks.7.1.theta.weight"),
        (generator_rules(3), "blocks.2.0.bn1.running_var", "blocks.6.0.bn1.stored_var"),
        (generator_rules(3), "attentions.0.gamma", "blocks.2.1.gamma"),
        (generator_rules(2), "output_conv.bias", "output_layer.2.bias"),
        (generator_rules(2), "shared.weight", "shared.weight"),
        (discriminator_rules(2), "blocks.4.1.conv3.weight", "blocks.4.1.conv3.weight"),
        (discriminator_rules(2), "blocks.0.0.shortcut.bias", "blocks.0.0.conv_sc.bias"),
        (discriminator_rules(2), "attentions.0.gamma", "blocks.0.2.gamma"),
        (discriminator_rules(2), "input_conv.u", "input_conv.u0"),
    ],
)
def test_released_names(rules, ours, released):
    assert renamed(ours, rules) == released


def test_blocks_that_widen_find_their_weights():
    torch.manual_seed(0)
    settings = BigGANDeepDiscriminatorSettings(width=2, attention_sides=(32,), depth=3)
    discriminator = settings.build(ImageSpec(64, 3, 4)).eval()
    state = {renamed(name, discriminator_rules(3)): value for name, value in discriminator.state_dict().items()}
    state = {name: value for name, value in state.items() if not name.endswith(".v")}
    config = {"resolution": 64, "ch": 2, "n_classes": 4, "attention": "32", "D_depth": 3, "SN_eps": 1e-6}
    loaded = load_released("biggan-deep", "discriminator", config, state)
    image_NCHW, label_N = torch.randn(3, 3, 64, 64), torch.arange(3)
    for layer in (discriminator.blocks[1][0].shortcut, discriminator.embed):
        assert layer is not None
    discriminator.load_state_dict(loaded.state_dict())  # u and v moved on by one power iteration
    torch.testing.assert_close(loaded(image_NCHW, label_N), discriminator(image_NCHW, label_N), rtol=0, atol=0)
    assert torch.equal(loaded.blocks[1][0].shortcut.weight, state["blocks.1.0.conv_sc.weight"])


def test_weights_that_are_no_biggan_deep_are_refused(reference):
    with pytest.raises(WeightsError, match="'hier' is false.*only weights trained with hier"):
        load_released("biggan-deep", "generator", {**reference.config, "hier": "false"}, reference.part("G."))
    with pytest.raises(WeightsError, match=r"'resolution' is 48; biggan-deep is one of \[32"):
        load_released("biggan-deep", "generator", {**reference.config, "resolution": "48"}, reference.part("G."))
    with pytest.raises(WeightsError, match=r"do not fit BigGANDeepGenerator.*'linear.weight' is \[512, 64\]"):
        load_released("biggan-deep", "generator", {**reference.config, "dim_z": "31"}, reference.part("G."))
    with pytest.raises(WeightsError, match=r"'blocks.0.2.conv1.weight' is missing.*'blocks.0.2.g.weight' is surplus"):
        load_released("biggan-deep", "discriminator", {**reference.config, "D_depth": "3"}, reference.part("D."))
