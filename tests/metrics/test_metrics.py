"""Several metrics at once: names, one pass over the images, figures as each would have alone."""

import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from bigtrain.metrics.evaluation import Evaluation, Evaluator, build_evaluator
from bigtrain.metrics.exchange import ONE_PROCESS
from bigtrain.metrics.features import Extractor, RealImages
from bigtrain.metrics.names import METRICS, Metric
from bigtrain.metrics.settings import EvaluationSettings
from bigtrain.recipe.errors import UsageError
from bigtrain.recipe.image import ImageSpec
from tests.metrics.conftest import real_images
from tests.rank_pool import run_ranks, start_ranks

CPU = torch.device("cpu")


def settings(*metrics: str, **changes: Any) -> EvaluationSettings:
    facts = {"every_images": 1, "num_images": 200, "kernel": {"subsets": 3, "subset_size": 50}, "metrics": metrics}
    return EvaluationSettings.model_validate({**facts, **changes})


def judge(digits: RealImages, cache: Path, *metrics: str, **changes: Any) -> Evaluator:
    return build_evaluator(settings(*metrics, **changes), digits, cache, CPU)


def copier(digits: RealImages, brighter: int = 30) -> Any:
    """A generator that shows real images, a little brighter."""

    def generate(index_N: Tensor) -> Tensor:
        return (digits.load((7 * index_N % digits.num_images).tolist())[0].int() + brighter).clamp(max=255).byte()

    return generate


def test_names_say_measure_and_extractor():
    assert METRICS.get("fid") == Metric("frechet", "inception")
    assert METRICS.get("kd_random") == Metric("kernel", "random")
    assert METRICS.get("is_classifier") == Metric("score", "classifier")
    assert METRICS.get("prdc_inception") == Metric("prdc", "inception")
    assert "is_random" not in METRICS.names()  # it tells no classes apart


def test_unknown_metric_is_refused_with_the_nearest_name():
    with pytest.raises(ValidationError, match="did you mean 'fd_classifier'"):
        settings("fd_clasifier")


def test_metrics_of_one_name_are_refused():
    with pytest.raises(ValidationError, match="names one twice"):
        settings("fid", "fid")
    with pytest.raises(ValidationError, match="their figures have one name"):
        settings("prdc_random", "prdc_classifier")
    with pytest.raises(ValidationError, match="random has settings twice"):
        settings("fid", extractor={"kind": "random"}, extractors=[{"kind": "random", "seed": 1}])


def test_only_extractors_that_are_read_are_made_and_with_their_settings():
    wanted = settings("fd_random", "kd_random", extractors=[{"kind": "random", "seed": 3}])
    assert {kind: each.seed for kind, each in wanted.extractor_settings.items()} == {"random": 3}


def test_one_pass_gives_what_each_metric_gives_alone(digits: RealImages, shared_cache: Path):
    names = ("fd_classifier", "kd_classifier", "is_classifier", "prdc_random", "fd_random")
    together = judge(digits, shared_cache, *names)
    asked: list[Tensor] = []

    def generate(index_N: Tensor) -> Tensor:
        asked.append(index_N)
        return copier(digits)(index_N)

    evaluation = together.evaluate(generate)
    assert len(asked) == 4  # batches of 64: every image was made once
    alone = {}
    for name in names:
        alone |= judge(digits, shared_cache, name).evaluate(copier(digits)).figures
    assert evaluation.figures == alone
    assert list(evaluation.figures)[0] == "fd_classifier"
    assert {"is_classifier", "is_classifier_std", "precision", "recall", "density", "coverage"} < set(alone)
    assert evaluation.protocol["metrics"] == list(names)
    assert [each["extractor"] for each in evaluation.protocol["further_extractors"]] == ["bigtrain-random"]
    assert evaluation.protocol["prdc"]["neighbours"] == 3


def test_metrics_that_are_the_default_ones_have_the_default_figures(digits: RealImages, shared_cache: Path):
    plain = judge(digits, shared_cache).evaluate(copier(digits))
    named = judge(digits, shared_cache, "fd_classifier", "kd_classifier").evaluate(copier(digits))
    assert plain.figures == named.figures
    assert list(plain.figures)[0] == "fd_classifier"
    assert plain.protocol_name != named.protocol_name  # a record says which metrics were asked for


def test_score_alone_looks_at_no_real_image(digits: RealImages, shared_cache: Path, classifier: Extractor):
    def unreadable(numbers: object) -> tuple[Tensor, Tensor]:
        raise AssertionError("images were read")

    blind = replace(digits, load=unreadable)
    figures = build_evaluator(settings("is_classifier"), blind, shared_cache, CPU).evaluate(copier(digits)).figures
    assert set(figures) == {"is_classifier", "is_classifier_std"}


def labels_of(digits: RealImages) -> Any:
    return lambda index_N: digits.load((7 * index_N % digits.num_images).tolist())[1]


def test_distances_within_classes_tell_which_class_is_worse(digits: RealImages, shared_cache: Path):
    def generate(index_N: Tensor) -> Tensor:
        image_NCHW = copier(digits, brighter=0)(index_N)
        is_three_N = labels_of(digits)(index_N) == 3
        image_NCHW[is_three_N] = 255 - image_NCHW[is_three_N]
        return image_NCHW

    judged = judge(digits, shared_cache, "fd_classifier", "fd_classifier_per_class", num_images=600)
    evaluation = judged.evaluate(generate, labels=labels_of(digits))
    by_class = evaluation.details["fd_classifier_per_class"]
    assert set(by_class) == {str(label) for label in range(10)}
    assert evaluation.figures["fd_classifier_per_class_worst"] == by_class["3"]["distance"]
    assert by_class["3"]["distance"] > 3 * max(each["distance"] for name, each in by_class.items() if name != "3")
    assert by_class["3"]["num_real"] == 183  # of the digits, all
    with pytest.raises(UsageError, match="nothing tells the classes of the generated images"):
        judged.evaluate(generate)
    unlabelled = replace(digits, image=ImageSpec(32, 1, 0))
    with pytest.raises(UsageError, match="the real images have no labels"):
        judge(unlabelled, shared_cache, "fd_random_per_class")


def test_extrapolated_distance_is_under_the_plain_one(digits: RealImages, shared_cache: Path):
    evaluation = judge(digits, shared_cache, "fd_classifier", "fd_classifier_infinity", num_images=400).evaluate(
        copier(digits, brighter=10)
    )
    by_number = evaluation.details["fd_classifier_infinity"]
    assert [number for number, _ in by_number] == [40 * place for place in range(1, 11)]
    assert by_number[-1][1] == evaluation.figures["fd_classifier"]
    assert evaluation.figures["fd_classifier_infinity"] < evaluation.figures["fd_classifier"] < by_number[0][1]


def test_covariance_divisor_belongs_to_the_protocol(digits: RealImages, shared_cache: Path):
    plain, other = (
        judge(digits, shared_cache, covariance_divisor=divisor).evaluate(copier(digits)) for divisor in ("n-1", "n")
    )
    assert plain.figures["fd_classifier"] != other.figures["fd_classifier"]
    assert plain.figures["fd_classifier"] == pytest.approx(other.figures["fd_classifier"], rel=0.05)
    assert plain.figures["kd_classifier"] == other.figures["kd_classifier"]
    assert "divisor N - 1" in plain.protocol["precision"]
    assert other.protocol["precision"].endswith("divisor N")


EVERY = (
    "fd_classifier",
    "kd_classifier",
    "is_classifier",
    "prdc_random",
    "fd_classifier_per_class",
    "fd_random_infinity",
)


def every_figure(ranks: Any, cache: Path, digits_file: Path, batch_images: int) -> Evaluation:
    digits = stored_digits(digits_file)
    judged = build_evaluator(settings(*EVERY, batch_images=batch_images), digits, cache, CPU, ranks)
    return judged.evaluate(copier(digits), labels=labels_of(digits))


def stored_digits(path: Path) -> RealImages:
    stored = torch.load(path, weights_only=True)
    return real_images(stored["image"], stored["label"], "digits")  # the hash finds the classifier of all digits


@pytest.fixture(scope="module")
def digits_file(digits: RealImages, classifier: Extractor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    image_NCHW, label_N = digits.load(range(300))  # fewer are quicker
    path = tmp_path_factory.mktemp("few") / "digits.pt"
    torch.save({"image": image_NCHW, "label": label_N}, path)
    return path


@pytest.fixture(scope="module")
def alone(shared_cache: Path, digits_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Every figure by one process in batches of 64."""
    cache = tmp_path_factory.mktemp("alone")
    shutil.copytree(shared_cache / "classifiers", cache / "classifiers")  # one classifier, other statistics
    return every_figure(ONE_PROCESS, cache, digits_file, 64)


@pytest.mark.two_process
def test_every_figure_is_the_same_in_one_two_and_three_processes(
    alone: Evaluation, shared_cache: Path, digits_file: Path, tmp_path: Path
):
    for world in (2, 3):
        shutil.copytree(shared_cache / "classifiers", tmp_path / str(world) / "classifiers")
        for other in run_ranks(world, every_figure, tmp_path / str(world), digits_file, 64):
            assert other.figures == alone.figures
            assert other.protocol == alone.protocol
            assert other.details.keys() == alone.details.keys()


def test_batches_of_7_and_of_64_give_one_answer(
    alone: Evaluation, shared_cache: Path, digits_file: Path, tmp_path: Path
):
    shutil.copytree(shared_cache / "classifiers", tmp_path / "classifiers")
    small = every_figure(ONE_PROCESS, tmp_path, digits_file, 7).figures
    assert small == pytest.approx(alone.figures, rel=1e-4)


def stop_in_the_middle(ranks: Any, cache: Path, digits_file: Path, read: Path) -> None:
    digits = stored_digits(digits_file)

    def load(numbers: Any) -> tuple[Tensor, Tensor]:
        if numbers[0] >= 190:
            read.touch()
            time.sleep(60)
        return digits.load(numbers)

    build_evaluator(settings("fd_classifier", "prdc_random"), replace(digits, load=load), cache, CPU, ranks)


def test_a_kill_half_way_leaves_nothing_that_is_used_later(shared_cache: Path, digits_file: Path, tmp_path: Path):
    cache = tmp_path / "cache"
    for folder in (cache, tmp_path / "fresh"):
        shutil.copytree(shared_cache / "classifiers", folder / "classifiers")
    group = start_ranks(1, stop_in_the_middle, cache, digits_file, tmp_path / "read")
    group.wait_for(tmp_path / "read")
    group.signal(0, signal.SIGKILL)
    assert group.outcomes()[0].exit_status == -signal.SIGKILL
    assert [path.name for path in cache.rglob("*") if path.is_file() and path.parent.name != "classifiers"] == []
    digits = stored_digits(digits_file)
    again = judge(digits, cache, "fd_classifier", "prdc_random").evaluate(copier(digits))
    fresh = judge(digits, tmp_path / "fresh", "fd_classifier", "prdc_random").evaluate(copier(digits))
    assert again.figures == fresh.figures
