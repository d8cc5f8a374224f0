"""torch-fidelity's own extractors from a file, without unpickling what could run code.

torch-fidelity unpickles a weight file in a way that can run code, so a file gets there only when it is the published
one, by its sha256, or when torch reads it as plain tensors.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pickle import UnpicklingError

import torch
from torch import nn

from bigtrain.metrics.weights import Found, WeightFile
from bigtrain.recipe.errors import WeightsError


def fidelity_module(name: str, layers: Sequence[str], file: WeightFile, found: Found) -> nn.Module:
    """Return torch-fidelity's module with the weights of a file.

    Raises:
        WeightsError: the file is damaged, is no file of plain tensors, or holds another network.
    """
    # Imported late: it draws in torchvision, and a recipe is checked without either.
    from torch_fidelity.utils import create_feature_extractor

    with readable(file, found):
        if found.origin != "published":
            torch.load(found.path, map_location="cpu", weights_only=True)
        module: nn.Module = create_feature_extractor(
            name, list(layers), cuda=False, verbose=False, feature_extractor_weights_path=str(found.path)
        )
    return module


@contextmanager
def readable(file: WeightFile, found: Found) -> Iterator[None]:
    """Turn what torch says of a bad file into a sentence.

    Raises:
        WeightsError: the block has failed to read it.
    """
    try:
        yield
    except (RuntimeError, UnpicklingError, EOFError, AttributeError, TypeError, KeyError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        known = f", its sha256 starts with {file.sha256_start}" if file.sha256_start else ""
        raise WeightsError(
            f"weights of {file.extractor}: {found.path} (sha256 {found.sha256[:16]}) cannot be read: {reason}; the "
            f"published file is {file.name}{known}: fetch {file.source} again"
        ) from error
