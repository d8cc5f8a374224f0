"""Small states with tensors of every kind, and ways to stop a save at any of its file operations."""

import errno
import os
import signal
from pathlib import Path

import torch

from bigtrain.engine.checkpoints import disk
from bigtrain.engine.checkpoints.checkpoint import Checkpoints
from bigtrain.engine.ranks import Ranks

# A file system in memory, where there is one: an fsync there costs nothing, and these tests make thousands.
MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None


def state(images):
    """Tensors of all dtypes and awkward shapes whose values depend on `images`, the same wherever they are made."""
    draw = torch.Generator().manual_seed(images)
    return {
        "generator/weight": torch.randn(7, 5, 3, 3, generator=draw).to(memory_format=torch.channels_last),
        "generator/half": torch.randn(3, 2, generator=draw).to(torch.float16),
        "generator/brain": torch.randn(5, generator=draw).to(torch.bfloat16),
        "optimizer/moment": torch.randn(11, 4, generator=draw, dtype=torch.float64),
        "optimizer/transposed": torch.randn(4, 6, generator=draw).t(),
        "optimizer/step": torch.tensor(float(images)),
        "game/count": torch.tensor(images),
        "game/flags": torch.rand(9, generator=draw) > 0.5,
        "game/pool": torch.randint(256, (2, 3, 5), generator=draw, dtype=torch.uint8),
        "game/int32": torch.arange(3, dtype=torch.int32) + images,
        "game/int16": torch.arange(3, dtype=torch.int16),
        "game/int8": torch.arange(3, dtype=torch.int8),
        "game/empty": torch.empty(0, 4),
        "game/extremes": torch.tensor([-0.0, 1e-45, 3.4e38, -3.4e38]),
        "parameter": torch.nn.Parameter(torch.randn(3, generator=draw)),
    }


def record(images):
    return {"progress": {"images_seen": images, "turns": {"discriminator": 3}}, "mean": 0.1 + images, "words": "é"}


def bits(tensor):
    """What makes two tensors the same to the last bit: dtype, shape, bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return tensor.dtype, tuple(tensor.shape), bytes(flat.numpy())


def is_state(checkpoint, images):
    """Tell whether a checkpoint is exactly the one after `images`: tensors and record, neither missing nor surplus."""
    expected = state(images)
    return (
        checkpoint.images == images
        and checkpoint.record == record(images)
        and checkpoint.tensors.keys() == expected.keys()
        and all(bits(checkpoint.tensors[name]) == bits(expected[name]) for name in expected)
    )


def save(ranks, folder, images, keep_last=2):
    return Checkpoints(folder, ranks, keep_last).save(images, state(images), record(images))


def save_in_background(ranks, folder, images, keep_last=2):
    """Save as training does: what the tensors become once the save has begun must not reach the disk."""
    checkpoints = Checkpoints(folder, ranks, keep_last)
    tensors = state(images)
    checkpoints.begin(images, tensors, record(images))
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.fill_(1)
    return checkpoints.finish().path


def save_alone(folder, *all_images, keep_last=2):
    for images in all_images:
        save(Ranks.single(), folder, images, keep_last)


def load_alone(folder):
    return Checkpoints(folder, Ranks.single()).load_newest()


class Stopped(BaseException):
    """Stands for the end of the process where tests simulate it."""


class StopAt:
    """Wraps every file operation; at the `number`-th something happens instead, or none where number is None.

    `how`: "kill" ends the process; "stop" raises Stopped, and so does every later operation, so that no clean-up of a
    process that would be dead reaches the disk; "enospc" and "eio" fail once; "full" fails from then on, writes only.
    A write that is stopped has written half.
    """

    def __init__(self, number, how):
        self.number, self.how, self.seen, self.names = number, how, 0, []
        self._operations = dict(disk.OPERATIONS)

    def __enter__(self):
        for name, operation in self._operations.items():
            disk.OPERATIONS[name] = self._wrapped(name, operation)
        return self

    def __exit__(self, *exception):
        disk.OPERATIONS.update(self._operations)

    def _wrapped(self, name, operation):
        def run(*arguments):
            self.seen += 1
            self.names.append(name)
            is_reached = self.number is not None and self.seen >= self.number
            if not is_reached:
                return operation(*arguments)
            if self.how == "full" and name != "write":
                return operation(*arguments)
            if self.seen > self.number and self.how in ("enospc", "eio"):
                return operation(*arguments)
            if name == "write" and self.seen == self.number:
                operation(arguments[0], arguments[1][: len(arguments[1]) // 2])
            return self._stop()

        return run

    def _stop(self):
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "stop":
            raise Stopped
        number = errno.EIO if self.how == "eio" else errno.ENOSPC
        raise OSError(number, os.strerror(number))


def leftovers(folder):
    return sorted(path.name for path in folder.glob(".tmp-*"))
