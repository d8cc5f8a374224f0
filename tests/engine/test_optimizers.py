"""Optimizer state by parameter name: what was saved is put back where its parameter lives, or refused."""

import pytest
import torch
from torch import nn

from bigtrain.engine.optimizers import AdamSettings, load_named_state, named_state, step_where


class Player(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3))
        self.gain = nn.Parameter(torch.ones(()))  # no dimension, as the gain of self-attention


def stepped() -> tuple[Player, torch.optim.Optimizer]:
    player = Player()
    optimizer = AdamSettings().build(player)
    (player.weight.sum() * player.gain).backward()
    optimizer.step()
    return player, optimizer


def test_saved_state_comes_back_bit_for_bit() -> None:
    state = named_state(*stepped())
    player = Player()
    optimizer = AdamSettings().build(player)
    load_named_state(player, optimizer, state)
    found = named_state(player, optimizer)
    assert (
        found.keys()
        == state.keys()
        == {f"{p}/{k}" for p in ("weight", "gain") for k in ("exp_avg", "exp_avg_sq", "step")}
    )
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_moments_and_step_counters_live_with_their_parameter() -> None:
    state = named_state(*stepped())
    player = Player().to("meta")  # stands for any other device
    optimizer = torch.optim.Adam(player.parameters())  # not AdamSettings: nothing is fused on the meta device
    load_named_state(player, optimizer, state)
    for name, value in named_state(player, optimizer).items():
        assert value.device.type == "meta", name
        assert value.dtype == torch.float32, name


def test_a_share_of_main_turns_scales_the_rate_and_the_decays() -> None:
    # StyleGAN2's discriminator: R1 every 16 steps, so c = 16 / 17.
    optimizer = AdamSettings(learning_rate=2e-3, betas=(0.0, 0.99), eps=1e-8).build(Player(), main_share=16 / 17)
    (group,) = optimizer.param_groups
    assert group["lr"] == pytest.approx(0.0018823529, rel=1e-7)
    assert group["betas"] == pytest.approx((0.0, 0.9905855), rel=1e-6)


def test_an_unwanted_step_changes_nothing_and_is_not_counted() -> None:
    player, optimizer = stepped()
    before = {**named_state(player, optimizer), **dict(player.named_parameters())}
    before = {name: tensor.detach().clone() for name, tensor in before.items()}
    player.weight.grad = torch.full((2, 3), float("nan"))
    step_where(optimizer, 1.0, torch.tensor(False))
    after = {**named_state(player, optimizer), **dict(player.named_parameters())}
    assert all(torch.equal(before[name], after[name]) for name in before)
    player.weight.grad = torch.ones(2, 3)
    step_where(optimizer, 0.5, torch.tensor(True))
    assert named_state(player, optimizer)["weight/step"] == 2
    assert not torch.equal(before["weight"], player.weight)


def test_state_that_does_not_fit_is_refused() -> None:
    state = named_state(*stepped())
    player = Player()
    with pytest.raises(RuntimeError, match=r"weight/exp_avg has shape \(6,\), its parameter \(2, 3\)"):
        load_named_state(player, AdamSettings().build(player), {"weight/exp_avg": torch.zeros(6)})
    with pytest.raises(KeyError, match="stranger"):
        load_named_state(player, AdamSettings().build(player), {"stranger/exp_avg": torch.zeros(6)})
    with pytest.raises(KeyError, match="gain"):
        load_named_state(player, AdamSettings().build(player), {n: t for n, t in state.items() if "gain" not in n})


def test_loading_the_state_of_before_the_first_step_leaves_none():
    player, optimizer = stepped()
    load_named_state(player, optimizer, {})
    assert named_state(player, optimizer) == {}
