"""Evaluations of generators whose figures are known: the real images themselves, and worse ones."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigtrain.draws import seed_of
from bigtrain.metrics.evaluation import Evaluation, Evaluator, build_evaluator
from bigtrain.metrics.exchange import ONE_PROCESS, from_main
from bigtrain.metrics.features import Extractor, RealImages
from bigtrain.metrics.kernel import KernelSettings
from bigtrain.metrics.settings import EvaluationSettings
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.image import ImageSpec
from tests.rank_pool import run_ranks

CPU = torch.device("cpu")
NUM_REAL = 50
FIGURES = {
    "fd_toy", "fd_toy_same_size", "fd_toy_real_against_real", "kd_toy", "kd_toy_std", "kd_toy_real_against_real"
}  # fmt: skip


class MeanAndSpread(nn.Module):
    """Three features that need no training: mean, deviation and contrast of the halves of an image."""

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Map uint8 [N, C, H, W] to float32 [N, 3]."""
        pixels = image_NCHW.float().flatten(1) / 255
        half = pixels.shape[1] // 2
        return torch.stack([pixels.mean(1), pixels.std(1), pixels[:, :half].mean(1) - pixels[:, half:].mean(1)], dim=1)


TOY = Extractor(
    MeanAndSpread(), "toy", "fd_toy", "kd_toy", dims=3, fingerprint="0", facts={"made": "by hand"}, device=CPU
)
TOYS = {"classifier": TOY}  # in the place of the default extractor


def images(index_N: Tensor, seed: int = 0, darker: float = 1.0) -> Tensor:
    """Image i, uint8 [1, 4, 4], from its number alone."""
    made = []
    for index in index_N.tolist():
        generator = torch.Generator().manual_seed(seed_of(seed, index))
        top = 1 + 254 * darker * torch.rand((), generator=generator)
        made.append((top * torch.rand(1, 4, 4, generator=generator)).to(torch.uint8))
    return torch.stack(made)


REAL = images(torch.arange(NUM_REAL), seed=1)


def real(load: Callable[[Sequence[int]], tuple[Tensor, Tensor]] | None = None) -> RealImages:
    def plain(numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        return REAL[list(numbers)], torch.zeros(len(numbers)).long()

    return RealImages(ImageSpec(4, 1, 0), NUM_REAL, "toy", load or plain)


def settings(**changes: Any) -> EvaluationSettings:
    facts = {"every_images": 1, "num_images": 30, "batch_images": 8, "kernel": {"subsets": 5, "subset_size": 10}}
    return EvaluationSettings.model_validate({**facts, **changes})


def evaluator(cache: Path, **changes: Any) -> Evaluator:
    return Evaluator(settings(**changes), real(), TOYS, cache, ONE_PROCESS)


def replay(index_N: Tensor) -> Tensor:
    return REAL[index_N % NUM_REAL]


def test_a_generator_that_replays_all_real_images_gets_zero(tmp_path: Path):
    evaluation = evaluator(tmp_path, num_images=NUM_REAL).evaluate(replay)
    assert set(evaluation.figures) == FIGURES
    assert evaluation.figures["fd_toy"] == pytest.approx(0, abs=1e-9)
    assert abs(evaluation.figures["kd_toy"]) < 3 * evaluation.figures["kd_toy_std"]


def test_a_worse_generator_gets_worse_figures(tmp_path: Path):
    judge = evaluator(tmp_path)
    good, bad = (judge.evaluate(lambda n, d=darker: images(n, darker=d)).figures for darker in (1.0, 0.5))
    for name in ("fd_toy", "fd_toy_same_size", "kd_toy"):
        assert bad[name] > good[name] + 0.005, name
    for name in ("fd_toy_real_against_real", "kd_toy_real_against_real"):
        assert bad[name] == good[name]


def test_real_sample_as_generator_gets_exactly_the_real_against_real_figure(tmp_path: Path):
    """Same size means: same number of images against the same reference, which shares no image with them."""
    judge = evaluator(tmp_path)
    assert judge.num_same_size == 25  # half of the real images, fewer than the 30 generated
    order = torch.randperm(NUM_REAL, generator=torch.Generator().manual_seed(seed_of(0, "real sample")))
    sample = order.argsort()[:25]

    def replay_sample(index_N: Tensor) -> Tensor:
        return REAL[sample[index_N % 25]]

    figures = judge.evaluate(replay_sample).figures
    assert figures["fd_toy_same_size"] == pytest.approx(figures["fd_toy_real_against_real"], rel=1e-9)
    assert figures["fd_toy_real_against_real"] > 1e-4


def test_real_parts_share_no_image_and_miss_none(tmp_path: Path):
    statistics = evaluator(tmp_path, num_images=20).statistics["classifier"]
    assert statistics is not None
    assert (statistics.sample.moments.count, statistics.rest.moments.count) == (20, 30)
    rows = torch.cat([statistics.sample.feature_ND, statistics.rest.feature_ND]).tolist()
    assert sorted(rows) == sorted(TOY(REAL).tolist())
    assert statistics.whole.moments.mean_D.tolist() == pytest.approx(TOY(REAL).double().mean(0).tolist(), abs=1e-7)


def test_generator_is_asked_for_batches_of_one_shape_and_numbers_from_zero(tmp_path: Path):
    asked: list[list[int]] = []

    def generate(index_N: Tensor) -> Tensor:
        asked.append(index_N.tolist())
        return images(index_N)

    evaluation = evaluator(tmp_path).evaluate(generate)
    assert asked == [list(range(8 * b, 8 * b + 8)) for b in range(4)]
    assert evaluation.protocol["num_generated"] == 30
    other = evaluator(tmp_path, batch_images=30).evaluate(images)
    for name in FIGURES:
        assert evaluation.figures[name] == pytest.approx(other.figures[name], rel=1e-4, abs=1e-9), name


def test_only_num_images_count_however_the_last_batch_is_filled(tmp_path: Path):
    def spoilt(index_N: Tensor) -> Tensor:
        made = images(index_N)
        made[index_N >= 30] = 255
        return made

    judge = evaluator(tmp_path)
    assert judge.evaluate(spoilt).figures == judge.evaluate(images).figures


def test_real_statistics_are_kept_by_content_and_protocol(tmp_path: Path):
    def unreadable(numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        raise AssertionError("images were read")

    first = evaluator(tmp_path)
    silent = real(unreadable)
    again = Evaluator(settings(), silent, TOYS, tmp_path, ONE_PROCESS)
    assert again.evaluate(images) == first.evaluate(images)
    changed = [
        (settings(seed=1), silent, TOY),
        (settings(num_images=20), silent, TOY),
        (settings(kernel=KernelSettings(max_images=20_000)), silent, TOY),
        (settings(), replace(silent, content_hash="other"), TOY),
        (settings(), silent, replace(TOY, fingerprint="1")),
    ]
    for one_settings, one_real, extractor in changed:
        with pytest.raises(AssertionError, match="images were read"):
            Evaluator(one_settings, one_real, {"classifier": extractor}, tmp_path, ONE_PROCESS)
    (file,) = (tmp_path / "real-statistics").iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(AssertionError, match="images were read"):
        Evaluator(settings(), silent, TOYS, tmp_path, ONE_PROCESS)
    assert evaluator(tmp_path).evaluate(images) == first.evaluate(images)


def test_protocol_says_what_figures_must_share(tmp_path: Path):
    first = evaluator(tmp_path).evaluate(images, {"truncation": "none"})
    assert first.protocol["num_real"] == 50
    assert first.protocol["num_same_size"] == 25
    assert first.protocol["num_real_rest"] == 25
    assert first.protocol["extractor_facts"] == {"made": "by hand"}
    assert first.protocol["sampling"] == {"truncation": "none"}
    assert set(first.protocol["versions"]) == {"torch", "torch-fidelity", "numpy"}
    assert first.protocol_name.startswith("fd_toy-30-")
    assert evaluator(tmp_path).evaluate(images, {"truncation": "none"}).protocol_name == first.protocol_name
    for other in (
        evaluator(tmp_path).evaluate(images, {"truncation": "resample:0.5"}),
        evaluator(tmp_path, seed=1).evaluate(images, {"truncation": "none"}),
        evaluator(tmp_path, standing_images=16).evaluate(images, {"truncation": "none"}),
    ):
        assert other.protocol_name != first.protocol_name


def test_kernel_features_are_the_first_ones_whatever_their_batch(tmp_path: Path):
    few = evaluator(tmp_path, kernel={"subsets": 1, "subset_size": 12, "max_images": 12})
    seen: list[Tensor] = []
    few.evaluate(lambda n: seen.append(images(n)) or seen[-1])  # type: ignore[func-returns-value]
    generated = few._generated(images, None)["classifier"]
    assert torch.equal(generated.feature_ND[:12], TOY(torch.cat(seen)[:12]))
    assert [segment.moments.count for segment in generated.segments] == [25, 5]


@pytest.mark.parametrize("num_real", [0, 3])
def test_too_few_real_images_are_refused_before_training(tmp_path: Path, num_real: int):
    with pytest.raises(DataError, match=f"{num_real} images for training and an evaluation needs 4"):
        Evaluator(settings(), replace(real(), num_images=num_real), TOYS, tmp_path, ONE_PROCESS)


def test_smallest_evaluation_gives_finite_figures(tmp_path: Path):
    tiny = replace(real(), num_images=4)
    figures = Evaluator(settings(num_images=4), tiny, TOYS, tmp_path, ONE_PROCESS).evaluate(images).figures
    assert all(math.isfinite(figure) for figure in figures.values())


def figures_of_rank(ranks: Any, cache: Path) -> Evaluation:
    return Evaluator(settings(), real(), TOYS, cache, ranks).evaluate(images)


@pytest.mark.two_process
@pytest.mark.parametrize("world", [2, 3])
def test_figures_do_not_depend_on_ranks_and_all_ranks_have_them(tmp_path: Path, world: int):
    alone = evaluator(tmp_path / "one").evaluate(images)
    results = run_ranks(world, figures_of_rank, tmp_path / "many")
    assert all(result == results[0] for result in results)
    assert results[0].protocol == alone.protocol
    for name in FIGURES:
        assert results[0].figures[name] == alone.figures[name], name


def fail_on_rank_one(ranks: Any, cache: Path) -> str:
    def load(numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        if ranks.rank == 1:
            raise DataError("shard 3 is cut short")
        return REAL[list(numbers)], torch.zeros(len(numbers)).long()

    try:
        Evaluator(settings(), real(load), TOYS, cache, ranks)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


@pytest.mark.two_process
def test_an_image_that_one_rank_cannot_read_stops_all(tmp_path: Path):
    first, second = run_ranks(2, fail_on_rank_one, tmp_path)
    assert second == "DataError: shard 3 is cut short"
    assert "shard 3 is cut short" in first
    assert list(tmp_path.iterdir()) == []


def test_from_main_returns_the_result():
    assert from_main(ONE_PROCESS, lambda: 3) == 3


def test_evaluator_of_digits_tells_a_good_generator_from_a_bad_one(
    digits: RealImages, classifier: Extractor, shared_cache: Path
):
    judged = EvaluationSettings.model_validate(
        {"every_images": 1, "num_images": 600, "kernel": {"subsets": 5, "subset_size": 300}}
    )
    judge = build_evaluator(judged, digits, shared_cache, CPU)
    assert judge.extractors["classifier"].fingerprint == classifier.fingerprint

    def noisy(index_N: Tensor) -> Tensor:
        image = digits.load((index_N % 1797).tolist())[0].float()
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(int(index_N[0])))
        return (image + 60 * noise).clamp(0, 255).to(torch.uint8)

    good = judge.evaluate(lambda index_N: digits.load((index_N % 1797).tolist())[0]).figures
    bad = judge.evaluate(noisy).figures
    assert set(good) == {name.replace("toy", "classifier") for name in FIGURES}
    assert good["fd_classifier_real_against_real"] < 2
    assert good["fd_classifier"] < 2
    assert bad["fd_classifier"] > 3 * good["fd_classifier"]
    assert bad["kd_classifier"] > good["kd_classifier"] + good["kd_classifier_std"]
