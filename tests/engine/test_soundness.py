"""Checksums see every change of bits, and ranks that hold something else are named."""

import pytest
import torch

from bigtrain.engine import soundness
from bigtrain.engine.ranks import Ranks
from bigtrain.engine.soundness import checksum, compare_ranks, not_finite
from bigtrain.recipe.errors import RanksDriftedError
from tests.rank_pool import run_ranks

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_single_element_and_their_order_show(dtype: torch.dtype) -> None:
    value = (torch.arange(24).reshape(2, 3, 4) % 2).to(dtype)
    whole = checksum(value)
    assert checksum(value.clone()) == whole
    for place in range(24):
        changed = value.clone()
        changed.view(-1)[place] = 1 - int(changed.view(-1)[place])
        assert checksum(changed) != whole
    assert checksum(value.roll(1)) != whole
    assert checksum(value.transpose(0, 2)) == checksum(value.transpose(0, 2).contiguous())


def test_the_smallest_change_shows_in_every_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = checksum(torch.zeros(50))
    monkeypatch.setattr(soundness, "ROW", 7)
    soundness._factors.cache_clear()
    value = torch.randn(50, generator=torch.Generator().manual_seed(0))
    sums = {int(checksum(value))}
    for place in range(50):
        changed = value.clone()
        changed[place] = torch.nextafter(changed[place], torch.tensor(9.0))
        sums.add(int(checksum(changed)))
    assert len(sums) == 51
    assert checksum(torch.zeros(50)) == whole
    assert checksum(value[1:]) == checksum(value[1:].clone())  # which does not start where a word may
    soundness._factors.cache_clear()
    assert checksum(torch.tensor(0.0)) != checksum(torch.tensor(-0.0))
    assert checksum(torch.zeros(3)) != checksum(torch.zeros(4))


def test_what_is_not_finite_is_named_in_order() -> None:
    tensors = {
        "b": torch.tensor([1.0, float("inf")]), "a": torch.ones(2), "n": torch.tensor([3]),
        "c": torch.tensor(float("nan"), dtype=torch.bfloat16),
    }  # fmt: skip
    assert not_finite(tensors) == ["b", "c"]
    assert not_finite({"n": torch.tensor([3])}) == []


def drifted(ranks: Ranks, on: int) -> str:
    """Compare tensors of which two differ on one rank by one bit."""
    tensors = {name: torch.linspace(0, 1, 9) for name in ("first", "second", "third")}
    compare_ranks(ranks, tensors, "before")
    if ranks.rank == on:
        for name in ("second", "third"):
            tensors[name][4] = torch.nextafter(tensors[name][4], torch.tensor(1.0))
    try:
        compare_ranks(ranks, tensors, "after 96 images")
    except RanksDriftedError as error:
        return f"{error.exit_status}: {error}"
    return "nothing seen"


@pytest.mark.two_process
@pytest.mark.parametrize("on", [0, 2])
def test_the_first_tensor_that_differs_and_the_ranks_are_named_on_all(on: int) -> None:
    (said,) = set(run_ranks(3, drifted, on))
    others = "1, 2" if on == 0 else "2"
    assert said.startswith(
        f"8: second differs between rank 0 and rank {others} after 96 images (2 of 3 tensors differ)"
    )
