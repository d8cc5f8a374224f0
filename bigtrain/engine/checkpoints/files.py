"""A checkpoint on disk: folders, parts and the manifest, as one process reads and writes them.

    checkpoints/000000123456/           one checkpoint, named by images seen; it has this name only once it is complete
        part-001-of-002.safetensors     whole named tensors; the parts together hold each of them once
        part-002-of-002.safetensors
        record.json                     everything that is not a tensor
        MANIFEST.json                   format, images, size and SHA-256 of every other file, and a checksum of itself
        PINNED                          optional: why this one is never pruned
    checkpoints/.tmp-...                being written, or being removed
    checkpoints/.bad-000000123456       did not verify, set aside

No common tensor format notices a flipped bit, so every file is hashed before it is used. Parts are plain safetensors
files, for anybody's tools.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigtrain.engine.checkpoints.disk import FileFacts, read_file
from bigtrain.engine.checkpoints.names import IMAGES_DIGITS, MANIFEST, folder_name
from bigtrain.recipe.errors import CheckpointError

FORMAT = 1
RECORD = "record.json"
PINNED = "PINNED"
READ_ATTEMPTS = 3
READ_PAUSE_S = 1.0
BAD_PREFIX = ".bad-"
HEADER_ALIGNMENT_BYTES = 8  # safetensors: the header is padded so that data starts aligned
DTYPE_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


class DamagedCheckpointError(CheckpointError):
    """A checkpoint is not what was written: a file is missing, cut short, changed, or of another checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint in memory."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]
    path: Path
    images: int


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint consists of."""

    images: int
    files: dict[str, FileFacts]

    def render(self) -> bytes:
        """Return the file's bytes; the same manifest always gives the same bytes."""
        files = {name: {"size": facts.size, "sha256": facts.sha256} for name, facts in sorted(self.files.items())}
        return _render({"format": FORMAT, "images": self.images, "files": files})


def part_name(rank: int, world: int) -> str:
    """Return the name of the part that `rank` of `world` ranks writes."""
    return f"part-{rank + 1:03d}-of-{world:03d}.safetensors"


def committed(folder: Path) -> list[int]:
    """Return the images of all checkpoints in a checkpoints folder, newest first, verified or not."""
    if not folder.is_dir():
        return []
    names = [entry.name for entry in folder.iterdir() if re.fullmatch(rf"\d{{{IMAGES_DIGITS},}}", entry.name)]
    return sorted((int(name) for name in names if name == folder_name(int(name))), reverse=True)


def part_chunks(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a safetensors file, tensor by tensor, without a second copy of them all.

    Tensors of wide elements come first, so that each starts at a multiple of its element's size.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name in names:
        end = start + tensors[name].nbytes
        shape = list(tensors[name].shape)
        header[name] = {"dtype": DTYPE_NAMES[tensors[name].dtype], "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT_BYTES)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().data


def parse_part(content: bytearray) -> dict[str, Tensor]:
    """Return the tensors of a verified safetensors file; they share its bytes."""
    header_bytes = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + header_bytes])
    header.pop("__metadata__", None)
    return {name: _tensor(content, 8 + header_bytes, entry) for name, entry in header.items()}


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of a checkpoint folder.

    Raises:
        DamagedCheckpointError: it is missing or not as it was written.
        CheckpointError: it is of a format that this version does not know.
    """
    try:
        content = (path / MANIFEST).read_bytes()
    except FileNotFoundError as error:
        raise DamagedCheckpointError(f"{path} has no {MANIFEST}") from error
    try:
        body = json.loads(content)
        body.pop("checksum")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError(f"{path / MANIFEST} is not a manifest ({error})") from error
    if content != _render(body):
        raise DamagedCheckpointError(f"{path / MANIFEST} was changed after it was written")
    if body["format"] != FORMAT:
        raise CheckpointError(
            f"{path} was written in checkpoint format {body['format']}, and this version of bigtrain reads format "
            f"{FORMAT}; use the version that wrote it, or a later one"
        )
    manifest = Manifest(body["images"], {name: FileFacts(**facts) for name, facts in body["files"].items()})
    world = len(manifest.files) - 1
    if sorted(manifest.files) != sorted([RECORD, *(part_name(rank, world) for rank in range(world))]):
        raise DamagedCheckpointError(f"{path / MANIFEST} lists other files than a record and all parts")
    return manifest


def check_sizes(path: Path) -> Manifest:
    """Return the manifest of a checkpoint whose files are all there in full length: the cheap part of verifying.

    Raises:
        CheckpointError: as `read_manifest`, or a file is missing or of another size.
    """
    manifest = read_manifest(path)
    for name, facts in manifest.files.items():
        size = (path / name).stat().st_size if (path / name).is_file() else None
        if size != facts.size:
            has = "is missing" if size is None else f"has {size:,} bytes instead of {facts.size:,}"
            raise DamagedCheckpointError(f"{path / name} {has}")
    return manifest


def read_checkpoint(path: Path) -> Checkpoint:
    """Return a checkpoint, every byte of which was verified.

    Args:
        path: the folder of one checkpoint, such as RUN/checkpoints/000000123456.

    Raises:
        DamagedCheckpointError: it is not what was written; the sentence names the file.
        CheckpointError: there is no checkpoint, or one of a format that this version does not know.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path} is no checkpoint folder; name one such as RUN/checkpoints/{folder_name(123456)}")
    manifest = check_sizes(path)
    tensors: dict[str, Tensor] = {}
    record: dict[str, Any] = {}
    for name in manifest.files:
        content = _read_verified(path / name, manifest.files[name])
        try:
            if name == RECORD:
                record = json.loads(content)
            else:
                tensors |= parse_part(content)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise DamagedCheckpointError(f"{path / name} is not what its name says ({error})") from error
    return Checkpoint(tensors, record, path, manifest.images)


def verify(path: Path) -> Manifest:
    """Return the manifest of a checkpoint, every byte of which was verified; keeps nothing of it in memory.

    Raises:
        CheckpointError: as `read_checkpoint`.
    """
    manifest = check_sizes(path)
    for name, facts in manifest.files.items():
        _read_verified(path / name, facts)
    return manifest


def newest_complete(folder: Path) -> Path | None:
    """Return the verified checkpoint of the most images in a checkpoints folder, or None; changes nothing on disk."""
    for images in committed(folder):
        try:
            verify(folder / folder_name(images))
        except DamagedCheckpointError:
            continue
        return folder / folder_name(images)
    return None


def _read_verified(path: Path, facts: FileFacts) -> bytearray:
    try:
        content, found = read_file(path)
    except FileNotFoundError as error:  # pruned by the run that writes here, while we read
        raise DamagedCheckpointError(f"{path} is missing") from error
    if found != facts:
        raise DamagedCheckpointError(f"{path} was changed after it was written: its SHA-256 is not the manifest's")
    return content


def _tensor(content: bytearray, start: int, entry: Mapping[str, Any]) -> Tensor:
    dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
    count = (entry["data_offsets"][1] - entry["data_offsets"][0]) // dtype.itemsize
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(content, dtype=dtype, count=count, offset=start + entry["data_offsets"][0]).reshape(shape)


def _render(body: Mapping[str, Any]) -> bytes:
    """Return JSON with a checksum of itself; every format keeps this form, so that damage is told from news."""
    plain = json.dumps(body, sort_keys=True)
    checksum = hashlib.sha256(plain.encode()).hexdigest()
    return (json.dumps({**body, "checksum": checksum}, sort_keys=True, indent=1) + "\n").encode()


def try_to_read(path: Path, images: int) -> tuple[Checkpoint | None, str | None, bool]:
    """Return a checkpoint, or what is wrong with it and whether that is damage (what a person must look at is not)."""
    for attempt in range(READ_ATTEMPTS):
        try:
            checkpoint = read_checkpoint(path)
            if checkpoint.images != images:
                raise DamagedCheckpointError(f"{path} holds the checkpoint after {checkpoint.images:,} images")
            return checkpoint, None, False
        except DamagedCheckpointError as error:
            return None, str(error), True
        except (CheckpointError, PermissionError) as error:
            return None, str(error), False
        except OSError as error:  # a network file system may only be away for a moment; a bad sector is bad for ever
            problem = f"{path} cannot be read: {error}"
            if attempt + 1 < READ_ATTEMPTS:
                time.sleep(READ_PAUSE_S)
    return None, problem, True
