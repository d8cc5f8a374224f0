"""Optimizer state by parameter name: what was saved is put back where its parameter lives, or refused."""

import pytest
import torch
from torch import nn

from bigtrain.engine.optimizers import AdamSettings, load_named_state, named_state


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


def test_moments_live_with_their_parameter_and_step_counters_on_the_cpu() -> None:
    state = named_state(*stepped())
    player = Player().to("meta")  # stands for any other device
    optimizer = AdamSettings().build(player)
    load_named_state(player, optimizer, state)
    for name, value in named_state(player, optimizer).items():
        assert value.device.type == ("cpu" if name.endswith("/step") else "meta"), name


def test_state_that_does_not_fit_is_refused() -> None:
    state = named_state(*stepped())
    player = Player()
    with pytest.raises(RuntimeError, match=r"weight/exp_avg has shape \(6,\), its parameter \(2, 3\)"):
        load_named_state(player, AdamSettings().build(player), {"weight/exp_avg": torch.zeros(6)})
    with pytest.raises(KeyError, match="stranger"):
        load_named_state(player, AdamSettings().build(player), {"stranger/exp_avg": torch.zeros(6)})
    with pytest.raises(KeyError, match="gain"):
        load_named_state(player, AdamSettings().build(player), {n: t for n, t in state.items() if "gain" not in n})
