"""Codes: the points that a generator makes images of, which can be mixed, walked between and added.

For a generator with styles a code is its styles; for others it is a latent and what stands for the class: the shared
embedding where the generator has one, else the label, which cannot be mixed.

Axes: N images, S points on a way, Z latent, E class embedding, L layers (styles), W style (after L), C channels,
H height, W width (after H).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bigtrain.games.noise_to_image import require_styles
from bigtrain.recipe.errors import UsageError
from bigtrain.sampling.interpolation import INTERPOLATIONS, lerp
from bigtrain.sampling.truncation import Truncation

STYLE, LATENT, CLASS, LABEL = "style", "latent", "class", "label"


@dataclass(frozen=True)
class Codes:
    """Points, one an image."""

    parts: Mapping[str, Tensor]
    """`style` [N, L, W]; or `latent` [N, Z] and, where there are classes, `class` [N, E] or `label` [N]."""

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def __getitem__(self, index: Tensor | slice | list[int]) -> "Codes":
        return Codes({name: part[index] for name, part in self.parts.items()})

    @property
    def has_styles(self) -> bool:
        """Whether these are styles."""
        return STYLE in self.parts


def joined(codes: Sequence[Codes]) -> Codes:
    """Return the codes one after the other."""
    return Codes({name: torch.cat([each.parts[name] for each in codes]) for name in codes[0].parts})


def encode(generator: Any, latent_NZ: Tensor, label_N: Tensor | None, law: Truncation) -> Codes:
    """Return the codes of latents and labels, with styles truncated as the law says.

    Raises:
        RecipeError: truncation in style space, but the generator has no styles, or fewer than are truncated.
    """
    if law.psi is not None:
        require_styles(generator, law)
    if hasattr(generator, "mapping"):
        style_NLW = generator.mapping(latent_NZ, label_N)
        if law.psi is not None:
            style_NLW = generator.truncate(style_NLW, law.psi, law.cutoff)
        return Codes({STYLE: style_NLW.contiguous()})
    if label_N is None:
        return Codes({LATENT: latent_NZ})
    # BigGAN without a shared embedding has `embed`, and refuses to use it.
    has_embedding = hasattr(generator, "embed") and getattr(generator, "shared", generator) is not None
    stands_for_class = {CLASS: generator.embed(label_N)} if has_embedding else {LABEL: label_N}
    return Codes({LATENT: latent_NZ, **stands_for_class})


def decode(generator: Any, codes: Codes) -> Tensor:
    """Return the images of codes, float32 [N, C, H, W], about -1..1, with constant noise where there is noise."""
    parts = codes.parts
    if codes.has_styles:
        image_NCHW = generator.synthesis(parts[STYLE], noise="const")
    elif CLASS in parts:
        image_NCHW = generator.synthesise(parts[LATENT], parts[CLASS])
    else:
        image_NCHW = generator(parts[LATENT], parts.get(LABEL))
    result_NCHW: Tensor = image_NCHW.float()
    return result_NCHW


def between(start: Codes, end: Codes, weight_S: Tensor, latents: str = "slerp") -> Codes:
    """Return the points at the weights (0: start, 1: end) of the way from one code to another, S codes.

    Styles and class embeddings go by the straight line, latents by the interpolation that `latents` names.

    Raises:
        UsageError: two classes, but the generator cannot mix classes.
        RecipeError: no such interpolation.
    """
    assert len(start) == len(end) == 1, f"a way goes between two codes, not {len(start)} and {len(end)}"
    ways: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
        STYLE: _straight,
        LATENT: lambda start_NZ, end_NZ, weight_S: INTERPOLATIONS.get(latents)(start_NZ, end_NZ, weight_S)[0],
        CLASS: _straight,
        LABEL: lambda start_N, end_N, weight_S: _same_label(start_N, end_N).expand(len(weight_S)),
    }
    return Codes({name: ways[name](start.parts[name], end.parts[name], weight_S) for name in start.parts})


def along(keys: Codes, position_S: Tensor, latents: str = "slerp") -> Codes:
    """Return codes on the way through all keys: position k is key k, and from the last one the way leads to the first.

    Args:
        keys: at least one code.
        position_S: float, not falling.
        latents: see `between`.

    Raises:
        UsageError: see `between`.
    """
    leg_S = position_S.floor().long()
    found = []
    for leg in leg_S.unique_consecutive().tolist():
        start, end = leg % len(keys), (leg + 1) % len(keys)
        weight_S = position_S[leg_S == leg] - leg
        found.append(between(keys[[start]], keys[[end]], weight_S, latents))
    return joined(found)


def combined(first: Codes, minus: Codes, plus: Codes) -> Codes:
    """Return first - minus + plus, code by code.

    A latent gets the mean length of the three, since generators know latents of about one length. Labels must agree.

    Raises:
        UsageError: labels differ, and the generator cannot mix classes.
    """
    return Codes(
        {name: _SUMS.get(name, _sum)(first.parts[name], minus.parts[name], plus.parts[name]) for name in first.parts}
    )


def _sum(first: Tensor, minus: Tensor, plus: Tensor) -> Tensor:
    return first - minus + plus


def _latent_sum(first_NZ: Tensor, minus_NZ: Tensor, plus_NZ: Tensor) -> Tensor:
    length_N1 = torch.stack([each.norm(dim=1, keepdim=True) for each in (first_NZ, minus_NZ, plus_NZ)]).mean(0)
    return length_N1 * torch.nn.functional.normalize(_sum(first_NZ, minus_NZ, plus_NZ), dim=1)


def _same_label(*labels: Tensor) -> Tensor:
    if not all(torch.equal(label_N, labels[0]) for label_N in labels):
        raise UsageError(
            "this generator cannot mix classes: it has neither a class embedding nor styles; stay within one class"
        )
    return labels[0]


def _straight(start: Tensor, end: Tensor, weight_S: Tensor) -> Tensor:
    way_SP = lerp(start.flatten(1), end.flatten(1), weight_S)[0]
    return way_SP.reshape(-1, *start.shape[1:])


_SUMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {LATENT: _latent_sum, LABEL: _same_label}
