"""Seeded permutations as pure functions: the same on every machine, for every version of every library.

A permutation sorts hashed keys (SplitMix64, Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators"), so it is a bijection by construction; numpy's own generators are not used because their streams may
change between releases.
"""

import hashlib

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, the increment of SplitMix64


def _finalise(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The output function of SplitMix64: a bijection of 64-bit integers whose bits all depend on all."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def stream_key(*facts: int | str) -> int:
    """Fold what a permutation depends on ("window", seed, epoch, number) into 64 bits."""
    digest = hashlib.blake2b("\x1f".join(map(str, facts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def permutation(count: int, *facts: int | str) -> Integers:
    """Return a permutation of 0..count-1 that depends on `facts` alone.

    Returns:
        int64, shape [count].
    """
    number = np.arange(1, count + 1, dtype=np.uint64)
    keys = _finalise(number * _GOLDEN + np.uint64(stream_key(*facts)))
    return np.argsort(keys, kind="stable").astype(np.int64)
