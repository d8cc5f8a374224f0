"""One micro-batch of a turn, as objectives and penalties see it.

Everything random is drawn before (`Inputs`), so that a loss is a function of tensors alone and can be compiled. Images
and logits are made when first asked for and kept (`Scene`), so that a penalty costs no forward that was made already.

Axes: N images, C channels, H height, W width (in w_NLW: numbers of a style), Z latent, L style layers.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Drawn = Mapping[str, Tensor]
Augment = Callable[[Tensor, Drawn], Tensor]


@dataclass(frozen=True)
class Inputs:
    """What a turn's loss reads besides the networks: real images, and all that was drawn for its images.

    `other_latent_NZ` and `mix_from_N` are there with style mixing: from layer `mix_from_N` on, styles come from the
    other latent. `augment_real` and `augment_fake` are what the augmentation drew, `extra` what penalties drew.
    """

    latent_NZ: Tensor
    label_N: Tensor | None = None
    real_NCHW: Tensor | None = None
    label_real_N: Tensor | None = None
    other_latent_NZ: Tensor | None = None
    mix_from_N: Tensor | None = None
    augment_real: Drawn = field(default_factory=dict)
    augment_fake: Drawn = field(default_factory=dict)
    extra: Mapping[str, Drawn] = field(default_factory=dict)

    def every(self, step: int) -> "Inputs":
        """Return what concerns generated images number 0, step, 2 step ... of the micro-batch, and nothing else."""

        def part(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[::step]

        return Inputs(
            self.latent_NZ[::step],
            part(self.label_N),
            other_latent_NZ=part(self.other_latent_NZ),
            mix_from_N=part(self.mix_from_N),
            extra=self.extra,
        )


def mix_styles(w_NLW: Tensor, other_w_NLW: Tensor, mix_from_N: Tensor) -> Tensor:
    """Return styles that come from `other_w_NLW` from layer `mix_from_N` on (Karras et al. 2019, arXiv:1812.04948)."""
    layer_L = torch.arange(w_NLW.shape[1], device=w_NLW.device)
    return torch.where((layer_L < mix_from_N[:, None])[:, :, None], w_NLW, other_w_NLW)


def synthesise(generator: Any, w_NLW: Tensor) -> Tensor:
    """Return images [N, C, H, W] of styles, with the noise that the generator's mode asks for."""
    noise = generator.settings.noise if generator.training else "const"
    image_NCHW: Tensor = generator.synthesis(w_NLW, noise=noise)
    return image_NCHW


class Scene:
    """Networks and inputs of one micro-batch, and what has been made of them so far.

    Args:
        networks: `generator` and `discriminator`.
        inputs: of this micro-batch.
        augment: what every image goes through before it is judged; None: nothing.
        judges_together: whether real and generated images may share a forward of the discriminator.
        learner: the player whose turn it is.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        inputs: Inputs,
        augment: Augment | None,
        judges_together: bool,
        learner: str,
    ) -> None:
        self.networks, self.inputs = networks, inputs
        self._augment, self._judges_together, self._learner = augment, judges_together, learner
        self._fake_NCHW: Tensor | None = None
        self._logits: tuple[Tensor, Tensor] | None = None

    def styles(self, inputs: Inputs) -> Tensor:
        """Return the (mixed) styles w [N, L, W] of a generator that has them."""
        generator: Any = self.networks["generator"]
        w_NLW: Tensor = generator.mapping(inputs.latent_NZ, inputs.label_N)
        if inputs.other_latent_NZ is None or inputs.mix_from_N is None:
            return w_NLW
        return mix_styles(w_NLW, generator.mapping(inputs.other_latent_NZ, inputs.label_N), inputs.mix_from_N)

    def synthesise(self, w_NLW: Tensor) -> Tensor:
        """Return images of styles."""
        return synthesise(self.networks["generator"], w_NLW)

    def fake(self) -> Tensor:
        """Return this micro-batch's generated images, with gradients to the generator in its own turns only."""
        if self._fake_NCHW is None:
            with nullcontext() if self._learner == "generator" else torch.no_grad():
                self._fake_NCHW = self._generate()
        return self._fake_NCHW

    def _generate(self) -> Tensor:
        inputs = self.inputs
        if inputs.mix_from_N is not None:
            return self.synthesise(self.styles(inputs))
        image_NCHW: Tensor = self.networks["generator"](inputs.latent_NZ, inputs.label_N)
        return image_NCHW

    def real(self) -> Tensor:
        """Return this micro-batch's real images."""
        assert self.inputs.real_NCHW is not None, "this turn reads no real images"
        return self.inputs.real_NCHW

    def judge_real(self, image_NCHW: Tensor) -> Tensor:
        """Return logits of images in the place of the real ones; several batches one after the other may be given."""
        return self._judge(image_NCHW, self.inputs.label_real_N, self.inputs.augment_real)

    def judge_fake(self, image_NCHW: Tensor) -> Tensor:
        """Return logits of images in the place of the generated ones."""
        return self._judge(image_NCHW, self.inputs.label_N, self.inputs.augment_fake)

    def logits(self) -> tuple[Tensor, Tensor]:
        """Return the logits of real and generated images, from one forward pass where they do not influence one
        another."""
        if self._logits is None:
            real_NCHW = self._augmented(self.real(), self.inputs.augment_real)
            self._logits = self.judge_plain(real_NCHW, self._augmented(self.fake(), self.inputs.augment_fake))
        return self._logits

    def judge_plain(self, real_NCHW: Tensor, fake_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of images in the place of the real and of the generated ones, without augmentation."""
        inputs, discriminator = self.inputs, self.networks["discriminator"]
        if not self._judges_together:
            return discriminator(real_NCHW, inputs.label_real_N), discriminator(fake_NCHW, inputs.label_N)
        no_labels = inputs.label_real_N is None or inputs.label_N is None
        label_N = None if no_labels else torch.cat([inputs.label_real_N, inputs.label_N])  # type: ignore[list-item]
        logits = discriminator(torch.cat([real_NCHW, fake_NCHW]), label_N)
        return logits[: len(real_NCHW)], logits[len(real_NCHW) :]

    def _judge(self, image_NCHW: Tensor, label_N: Tensor | None, drawn: Drawn) -> Tensor:
        batches = len(image_NCHW) // len(self.inputs.latent_NZ)
        if batches > 1:
            label_N = None if label_N is None else label_N.repeat(batches)
            drawn = {name: torch.cat([tensor] * batches) for name, tensor in drawn.items()}
        logits: Tensor = self.networks["discriminator"](self._augmented(image_NCHW, drawn), label_N)
        return logits

    def _augmented(self, image_NCHW: Tensor, drawn: Drawn) -> Tensor:
        return image_NCHW if self._augment is None else self._augment(image_NCHW, drawn)
