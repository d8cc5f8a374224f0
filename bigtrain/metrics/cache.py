"""A folder of safetensors files, each named by a hash of everything its content follows from."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from bigtrain.recipe.errors import UsageError

FACTS_KEY = "facts"  # under which the metadata of a file keeps its key's facts and what else was stored


def key_of(facts: Mapping[str, Any]) -> str:
    """Return 32 hex digits that depend on all facts (JSON values), not on their order."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def to_bytes(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """Return a safetensors file that holds the tensors and, as metadata, the facts."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data: bytes = save(whole, metadata={FACTS_KEY: json.dumps(facts, sort_keys=True)})
    return data


def from_bytes(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and facts that `to_bytes` was given.

    Raises:
        ValueError: the bytes are cut short, or were not written by `to_bytes`.
    """
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return tensors, json.loads(header["__metadata__"][FACTS_KEY])
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"not a file of this cache: {error}") from error


def read_cached(path: Path) -> bytes | None:
    """Return a file's bytes, or None when it is not there or damaged (it is then made again and replaced).

    Raises:
        UsageError: the folder cannot be read.
    """
    try:
        data = path.read_bytes()
        from_bytes(data)
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        raise _refused(path, error) from error
    return data


def write_cached(path: Path, data: bytes) -> None:
    """Write a file aside and rename it: other runs that share the folder see a whole file or none.

    Raises:
        UsageError: the folder cannot be written, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_aside(path, data)
    except OSError as error:
        raise _refused(path, error) from error


def _write_aside(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.aside-{os.getpid()}")
    try:
        with aside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _refused(path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"the cache {path.parent.parent} cannot be used ({error.strerror}: {error.filename}); mend its permissions, "
        "free space, or have `bigtrain evaluate` keep another one with --cache (a run that trains has it beside its "
        "folder)"
    )
