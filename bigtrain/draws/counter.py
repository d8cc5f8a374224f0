"""Counter-based random numbers: a hash of (seed, salt, stream, step, turn, image index, component).

The mixing function is the 64-bit finaliser of MurmurHash3 with Stafford's constants (variant 13), as SplitMix64 uses it
(Steele, Lea and Flood 2014, doi:10.1145/2714064.2660195), applied twice: once to the image's key, once to each
component. Normal numbers follow Box and Muller (1958). All of it is plain int64 and float64 arithmetic, vectorised, so
the numbers do not depend on the world size or the micro-batch; between devices they agree to the last bits of log and
cos.

Axes: N images.
"""

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, the odd integer nearest 2^64 / golden ratio, as int64
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_MASK_34 = (1 << 34) - 1
_MASK_37 = (1 << 37) - 1
_MASK_33 = (1 << 33) - 1
_MASK_52 = (1 << 52) - 1
_UNIT = 2.0**-52


def _mix(key: Tensor) -> Tensor:
    """Scramble int64 keys: a bijection of 64 bits (shifts are arithmetic in torch, so their sign bits are masked
    off)."""
    key = (key ^ ((key >> 30) & _MASK_34)) * _MIX_1
    key = (key ^ ((key >> 27) & _MASK_37)) * _MIX_2
    return key ^ ((key >> 31) & _MASK_33)


def seed_of(*facts: int | str) -> int:
    """Return a seed in [0, 2^63) that depends on all facts (BLAKE2b of their text)."""
    text = "\x1f".join(str(fact) for fact in facts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


@dataclass(frozen=True)
class Draws:
    """The random numbers of one turn for the images `index_N` of the global batch (int64, on the device that uses
    them)."""

    seed: int
    salt: int
    step: int
    turn: int
    index_N: Tensor
    dtype: torch.dtype = torch.float32

    @property
    def num_images(self) -> int:
        """How many images these draws are for."""
        return len(self.index_N)

    def every(self, step: int) -> "Draws":
        """Return the draws of images number 0, step, 2 step ... of these."""
        return replace(self, index_N=self.index_N[::step])

    def _bits(self, stream: str, num_components: int, offset: int = 0) -> Tensor:
        """Return int64 [N, num_components], uniform over 64 bits."""
        key = seed_of(self.seed, self.salt, self.step, self.turn, stream)
        image_N = _mix(self.index_N * _GOLDEN + key)
        component_C = torch.arange(offset + 1, offset + num_components + 1, device=self.index_N.device) * _GOLDEN
        return _mix(image_N[:, None] + component_C[None, :])

    def _unit(self, stream: str, num_components: int, offset: int = 0) -> Tensor:
        """Return float64 [N, num_components] in (0, 1), never 0 or 1: 52 bits and a half are exact in a double."""
        return (((self._bits(stream, num_components, offset) >> 12) & _MASK_52).double() + 0.5) * _UNIT

    def uniform(self, stream: str, *shape: int) -> Tensor:
        """Return float64 [N, *shape], uniform in (0, 1)."""
        return self._unit(stream, math.prod(shape)).view(-1, *shape)

    def normal(self, stream: str, *shape: int) -> Tensor:
        """Return [N, *shape] of `dtype`, standard normal."""
        count = math.prod(shape)
        half = (count + 1) // 2
        radius = torch.sqrt(-2 * torch.log(self._unit(stream, half)))
        angle = (2 * math.pi) * self._unit(stream, half, offset=half)
        pair = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
        return pair[:, :count].to(self.dtype).view(-1, *shape)

    def integers(self, stream: str, high: int, *shape: int) -> Tensor:
        """Return int64 [N, *shape], uniform over 0..high-1 (bias below high / 2^52)."""
        return (self._unit(stream, math.prod(shape)) * high).long().clamp_(max=high - 1).view(-1, *shape)

    def categorical(self, stream: str, weight_K: Tensor) -> Tensor:
        """Return int64 [N]: k with probability weight_K[k] / sum(weight_K)."""
        edge_K = torch.cumsum(weight_K.double(), 0)
        point_N = self._unit(stream, 1)[:, 0] * edge_K[-1]
        return torch.searchsorted(edge_K, point_N, right=True).clamp_(max=len(weight_K) - 1)
