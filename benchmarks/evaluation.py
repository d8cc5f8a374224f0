"""Evaluation against torch-fidelity: the trace of the Frechet distance, extraction, and how well figures agree.

Rows named `trace` are the root's trace at 2,048 dimensions, ours (`ours`) and torch-fidelity's (`reference`), in
seconds. Rows named `extract` run Inception, with seeded random weights, over one set of images: our collector of
moments, features and score against torch-fidelity's extraction and its statistics, in images per second. Rows named
`agree` hold the largest difference between our figures and torch-fidelity's, relative to the figure: `ours` is the
difference and there is nothing to compare it with. 2 CPU threads, or OMP_NUM_THREADS.

BENCH_DIMS and BENCH_IMAGES make it smaller.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import Row, compare, main
from bigtrain.metrics.collect import Keep, Segment, SetCollector
from bigtrain.metrics.exchange import ONE_PROCESS
from bigtrain.metrics.extractors.inception import load_inception
from bigtrain.metrics.features import Extractor
from bigtrain.metrics.frechet import frechet_distance, frechet_of_features
from bigtrain.metrics.kernel import KernelSettings, kernel_distance
from bigtrain.metrics.moments import GaussianLaw
from bigtrain.metrics.prdc import PrdcSettings, prdc
from bigtrain.metrics.score import ScoreSettings, ScoreSums
from bigtrain.metrics.weights import INCEPTION, WeightStore

NUM_THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
DIMS = int(os.environ.get("BENCH_DIMS", "2048"))
NUM_IMAGES = int(os.environ.get("BENCH_IMAGES", "256"))
BATCH_IMAGES = min(32, NUM_IMAGES)
SIDE = 64


def drawn(dims: int, num: int, decay: float, generator: torch.Generator) -> Tensor:
    """Return `num` random features whose scales fall with a power of their place, float64."""
    scale_D = torch.arange(1, dims + 1, dtype=torch.float64) ** -decay
    turn_DD = torch.linalg.qr(torch.randn(dims, dims, dtype=torch.float64, generator=generator)).Q
    feature_ND: Tensor = torch.randn(num, dims, dtype=torch.float64, generator=generator) * scale_D.sqrt() @ turn_DD
    return feature_ND - feature_ND.mean(0)


def their_distance(a_DD: Tensor, b_DD: Tensor) -> float:
    """Return torch-fidelity's distance of two covariances."""
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    statistics = [{"mu": np.zeros(len(each)), "sigma": each.numpy()} for each in (a_DD, b_DD)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])


def our_distance(a_DD: Tensor, b_DD: Tensor) -> float:
    """Return ours."""
    return frechet_distance(*(GaussianLaw(torch.zeros(len(each), dtype=torch.float64), each) for each in (a_DD, b_DD)))


def agreement(name: str, ours: float, theirs: float) -> Row:
    """Return a row of the difference of two figures, relative to theirs."""
    difference = abs(ours - theirs) / max(abs(theirs), 1e-12)
    return Row(name=f"agree: {name}", ours=difference, reference=None, ratio=None, unit="relative difference")


def trace_rows() -> Iterator[Row]:
    """Yield the time of both traces, and how far they are apart, for three kinds of covariances."""
    generator = torch.Generator().manual_seed(0)
    for title, num, decay in (
        ("well-conditioned", 4 * DIMS, 0.3),
        ("ill-conditioned", 4 * DIMS, 2.0),
        ("fewer images than dimensions", DIMS // 2, 0.3),
    ):
        features = [drawn(DIMS, num, decay, generator) for _ in range(2)]
        covariances = [torch.cov(feature_ND.T) for feature_ND in features]
        name = f"trace, {title}, {DIMS} dims"
        yield compare(name, lambda c=covariances: our_distance(*c), lambda c=covariances: their_distance(*c), 3)
        yield agreement(name, our_distance(*covariances), their_distance(*covariances))
        if num < DIMS:
            name = f"trace, {title}, from features"
            yield compare(name, lambda f=features: frechet_of_features(*f), lambda c=covariances: their_distance(*c), 3)
            yield agreement(name, frechet_of_features(*features), their_distance(*covariances))


def random_inception(folder: Path) -> Extractor:
    """Return Inception with seeded random weights, as extractors are made from a file."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Inception

    path = folder / "random.pth"
    torch.save({}, path)
    plain, Inception.load_state_dict = Inception.load_state_dict, lambda self, state: None  # it loads while it is made
    try:
        torch.manual_seed(0)
        network = Inception("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
    finally:
        Inception.load_state_dict = plain
    torch.save(network.state_dict(), path)
    return load_inception(WeightStore(offline=True).get(INCEPTION, str(path)), torch.device("cpu"))


def extraction_row(extractor: Extractor, image_NCHW: Tensor) -> Row:
    """Return images per second of our extraction and of torch-fidelity's, each with its statistics."""
    from torch_fidelity.metric_fid import fid_features_to_statistics

    module: Any = extractor.network.module

    def ours() -> None:
        keep = Keep(moments=True, features=len(image_NCHW), score=ScoreSettings())
        collector = SetCollector(extractor, keep, [Segment(len(image_NCHW), len(image_NCHW))])
        for place_N in torch.split(torch.arange(len(image_NCHW)), BATCH_IMAGES):
            collector.add(place_N, extractor.padded_layers(image_NCHW[place_N], BATCH_IMAGES))
        collector.collect(ONE_PROCESS).first(len(image_NCHW))

    @torch.no_grad()
    def theirs() -> None:
        parts = [module(part) for part in torch.split(image_NCHW, BATCH_IMAGES)]
        fid_features_to_statistics(torch.cat([part[0] for part in parts]))

    row = compare("", ours, theirs, 3)
    ours_per_s, theirs_per_s = (len(image_NCHW) / seconds for seconds in (row["ours"], row["reference"] or 1.0))
    name = f"extract: Inception, {len(image_NCHW)} images of {SIDE} px, batch {BATCH_IMAGES}"
    return Row(name=name, ours=ours_per_s, reference=theirs_per_s, ratio=ours_per_s / theirs_per_s, unit="images/s")


def figure_rows() -> Iterator[Row]:
    """Yield how far figures of the same features are from torch-fidelity's."""
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    generator = torch.Generator().manual_seed(1)
    generated, real = (torch.randn(2000, 64, generator=generator) + shift for shift in (0.1, 0.0))
    theirs = kid_features_to_metric(generated, real, kid_subset_size=1000, kid_subsets=10, rng_seed=0, verbose=False)
    kernel = kernel_distance(generated, real, KernelSettings(subsets=10))
    yield agreement("kernel distance", kernel.mean, theirs["kernel_inception_distance_mean"])
    sums = ScoreSums(ScoreSettings(), len(generated), 64)
    sums.update(torch.arange(len(generated)), generated)
    score = sums.score(lambda value: value)
    yield agreement("inception score", score.mean, isc_features_to_metric(generated)["inception_score_mean"])
    found = prdc(generated, real, PrdcSettings())
    theirs = prc_features_to_metric(generated, real, verbose=False)
    yield agreement("precision", found.precision, theirs["precision"])
    yield agreement("recall", found.recall, theirs["recall"])


def measure() -> list[Row]:
    """Return all rows."""
    torch.set_num_threads(NUM_THREADS)
    made = torch.Generator().manual_seed(0)
    image_NCHW = torch.randint(0, 256, (NUM_IMAGES, 3, SIDE, SIDE), dtype=torch.uint8, generator=made)
    with tempfile.TemporaryDirectory() as folder:
        extracted = extraction_row(random_inception(Path(folder)), image_NCHW)
    return [*trace_rows(), extracted, *figure_rows()]


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
