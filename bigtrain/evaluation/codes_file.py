"""Codes as files: plain tensors in safetensors, so that reading one runs no code."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from bigtrain.recipe.errors import CheckpointError
from bigtrain.sampling.files import written_aside
from bigtrain.sampling.truncation import Truncation
from bigtrain.training.codes import Codes
from bigtrain.training.loaded import LoadedModel

CODES_FORMAT = "bigtrain-codes-1"  # the one key of the metadata: safetensors writes several in any order
CODE = "code"  # tensors of codes are named code/PART; others beside them are what `extra` holds


def save_codes(path: Path, codes: Codes, extra: dict[str, Tensor], record: dict[str, Any]) -> Path:
    """Write codes, further tensors and a record (JSON values) to one file, and return its path.

    Raises:
        OSError: see `written_aside`.
    """
    tensors = {f"{CODE}/{name}": part.detach().cpu().contiguous() for name, part in codes.parts.items()}
    tensors |= {name: tensor.detach().cpu().contiguous() for name, tensor in extra.items()}
    with written_aside(path) as stream:
        stream.write(save(tensors, metadata={CODES_FORMAT: json.dumps(record)}))
    return path


def read_codes(path: Path, model: LoadedModel) -> Codes:
    """Return the codes of a file, on the model's device.

    Raises:
        CheckpointError: the file is missing, damaged or no file of codes, or its codes do not fit the generator.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = list(file.metadata() or {})
            names = [name for name in file.keys() if name.startswith(f"{CODE}/")]  # noqa: SIM118 (no mapping)
            parts = {name.removeprefix(f"{CODE}/"): file.get_tensor(name).to(model.device) for name in names}
    except Exception as error:  # safetensors raises an exception of its own, OSError, and others
        raise CheckpointError(f"{path} cannot be read as codes ({error}); name a file of `bigtrain project`") from error
    if found != [CODES_FORMAT] or not parts:
        raise CheckpointError(f"{path} holds no codes (metadata {found}); name a file of `bigtrain project`")
    expected = model.codes([0], truncation=Truncation()).parts
    shapes = {name: tuple(part.shape[1:]) for name, part in parts.items()}
    fitting = {name: tuple(part.shape[1:]) for name, part in expected.items()}
    if shapes != fitting:
        raise CheckpointError(
            f"{path} holds codes {shapes}, but those of {model.path} are {fitting}; name codes of this run"
        )
    return Codes(parts)
