"""Several metrics at once: names, one pass over the images, figures as each would have alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from bigtrain.metrics.evaluation import Evaluator, build_evaluator
from bigtrain.metrics.features import RealImages
from bigtrain.metrics.names import METRICS, Metric
from bigtrain.metrics.settings import EvaluationSettings

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
