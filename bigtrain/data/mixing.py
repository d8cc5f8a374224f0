"""How well the classes are mixed inside the windows that the training order permutes.

Training permutes samples only inside windows of shards, so shards written class by class would give batches of few
classes. The measure is the label entropy of a window against that of as many labels drawn from the whole data set.
Axes: W windows, K classes.
"""

import numpy as np
import numpy.typing as npt

from bigtrain.data.index import NO_LABEL, FolderIndex, add_histograms
from bigtrain.recipe.errors import DataError

SORTED_BELOW = 0.9  # well mixed shards measure 1.00 +- 0.02; ten classes sorted over two windows 0.7


def label_mixing(index: FolderIndex, window_shards: int) -> float:
    """Return the label entropy of windows of consecutive shards relative to that of random windows of the same sizes.

    Returns:
        About 1 for well mixed shards (and for one window, one class or none), 0 for one class a window.
    """
    shards = index.shards
    windows = [
        add_histograms([entry.class_histogram for entry in shards[at : at + window_shards]])
        for at in range(0, len(shards), window_shards)
    ]
    # Samples without a label have to be mixed among the others as if they were a class.
    labels = [*([NO_LABEL] if index.num_unlabelled else []), *range(len(index.classes))]
    if len(windows) == 1 or len(labels) < 2:
        return 1.0
    count_WK = np.array([[window.get(label, 0) for label in labels] for window in windows], dtype=np.int64)
    law_K = count_WK.sum(0) / count_WK.sum()
    # Small windows have little entropy even when well mixed, so the measure is against drawn windows, not log K.
    drawn_WK = np.random.default_rng(0).multinomial(count_WK.sum(1), law_K)
    expected = entropy(drawn_WK).sum()
    return float(entropy(count_WK).sum() / expected) if expected > 0 else 1.0


def entropy(count_WK: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the entropy in nats of each row of counts, shape [W]; an empty row has none."""
    share_WK = count_WK / np.maximum(count_WK.sum(1, keepdims=True), 1)
    log_WK = np.log(share_WK, out=np.zeros_like(share_WK), where=share_WK > 0)
    found: npt.NDArray[np.float64] = -(share_WK * log_WK).sum(1)
    return found


def refuse_sorted(index: FolderIndex, window_shards: int) -> None:
    """Stop a run that would see few classes a batch.

    Raises:
        DataError: shards are sorted by class.
    """
    mixing = label_mixing(index, window_shards)
    if mixing < SORTED_BELOW:
        raise DataError(
            f"shards are sorted by class: windows of {window_shards} shards hold {mixing:.0%} of the label entropy "
            f"of mixed ones (limit {SORTED_BELOW:.0%}); "
            "write them again with `bigtrain shards folder`, which permutes samples, or set data.allow_sorted=true"
        )
