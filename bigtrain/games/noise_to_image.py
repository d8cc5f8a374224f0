"""The game of Goodfellow et al. (2014, arXiv:1406.2661): a generator maps noise to images, a discriminator tells them
from real ones.

Unconditional, or class-conditional where the data has labels (Mirza and Osindero 2014, arXiv:1411.1784). One step is
`discriminator_turns` turns of the discriminator, each on the next real batch, then one turn of the generator.

Axes: N images, C channels, H height, W width, Z latent, K classes.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bigtrain.data.batch import Batch
from bigtrain.draws import Draws
from bigtrain.games.base import GAMES, DataFacts, Loss, SampleSettings, Turn
from bigtrain.losses.adversarial import OBJECTIVES
from bigtrain.networks.layers.statistics import has_batchnorm
from bigtrain.networks.registry import DISCRIMINATORS, GENERATORS
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.progress import Progress
from bigtrain.recipe.settings import Settings


@GAMES.add("noise_to_image")
class NoiseToImageSettings(Settings):
    """Settings of the noise-to-image game."""

    players: ClassVar[dict[str, tuple[str, ...]]] = {"discriminator": ("discriminator",), "generator": ("generator",)}

    kind: Literal["noise_to_image"] = "noise_to_image"
    """Which game."""
    generator: GENERATORS.union()  # type: ignore[valid-type]
    """The generator and its settings."""
    discriminator: DISCRIMINATORS.union()  # type: ignore[valid-type]
    """The discriminator and its settings."""
    objective: Literal[tuple(OBJECTIVES.names())] = "hinge"  # type: ignore[valid-type]
    """The adversarial loss of both players."""
    discriminator_turns: int = Field(1, ge=1)
    """Turns of the discriminator before each turn of the generator."""
    fake_labels: Literal["uniform", "empirical", "batch"] = "uniform"
    """Law of the labels of generated images: uniform over classes, as frequent as in the data, or those of the real
    batch."""

    def build(self, facts: DataFacts) -> "NoiseToImage":
        """Return the game with freshly initialised networks (from torch's generator).

        Raises:
            RecipeError: networks do not fit the images; one problem each, with its key path.
        """
        networks: dict[str, nn.Module] = {}
        problems: list[str] = []
        for name, settings in (("generator", self.generator), ("discriminator", self.discriminator)):
            try:
                networks[name] = settings.build(facts.image)
            except RecipeError as error:
                problems += [f"game.{name}: {problem}" for problem in error.problems]
        if problems:
            raise RecipeError(problems)
        return NoiseToImage(self, facts, networks)


class NoiseToImage:
    """Two players, `discriminator` and `generator`, of one network each."""

    def __init__(self, settings: NoiseToImageSettings, facts: DataFacts, networks: dict[str, nn.Module]) -> None:
        self.settings = settings
        self.objective = OBJECTIVES.get(settings.objective)
        self.facts = facts
        self.networks = networks
        self.players = settings.players
        self.averaged = ("generator",)
        self.state: nn.Module = nn.Module()  # hinge and its kin keep nothing between turns
        # Batch statistics over real and generated images together would leak which is which.
        self._judges_together = not has_batchnorm(self.networks["discriminator"])

    def turns(self, progress: Progress) -> tuple[Turn, ...]:
        """Return the discriminator's turns, then the generator's."""
        discriminator = (Turn("discriminator", reads="next"),) * self.settings.discriminator_turns
        return (*discriminator, Turn("generator", reads=self._generator_reads()))

    def _generator_reads(self) -> Literal["next", "same", "none"]:
        if self.objective.needs_real_in_generator:
            return "next"
        return "same" if self.settings.fake_labels == "batch" else "none"

    def loss(
        self, turn: Turn, networks: Mapping[str, nn.Module], batch: Batch | None, draws: Draws, progress: Progress
    ) -> Loss:
        """Return the objective of the turn's player over one micro-batch."""
        if turn.player == "discriminator":
            assert batch is not None, "the discriminator's turn reads real images"
            return self._discriminator_loss(networks, batch, draws)
        return self._generator_loss(networks, batch, draws)

    def _discriminator_loss(self, networks: Mapping[str, nn.Module], real: Batch, draws: Draws) -> Loss:
        label_N = self.fake_labels(draws, real)
        with torch.no_grad():
            fake_NCHW = networks["generator"](self.latents(draws), label_N)
        logit_real, logit_fake = self._judge_pair(networks, real, fake_NCHW, label_N)
        value = self.objective.discriminator(logit_real, logit_fake)
        stats = {
            "loss_discriminator": value.detach(),
            "logit_real": logit_real.detach().mean(),
            "logit_fake": logit_fake.detach().mean(),
            "sign_real": logit_real.detach().sign().mean(),
        }
        return Loss(value, stats)

    def _generator_loss(self, networks: Mapping[str, nn.Module], real: Batch | None, draws: Draws) -> Loss:
        label_N = self.fake_labels(draws, real)
        fake_NCHW = networks["generator"](self.latents(draws), label_N)
        if self.objective.needs_real_in_generator:
            assert real is not None, "this objective compares with real images"
            logit_real, logit_fake = self._judge_pair(networks, real, fake_NCHW, label_N)
        else:
            logit_real, logit_fake = None, networks["discriminator"](fake_NCHW, label_N)
        value = self.objective.generator(logit_fake, logit_real)
        return Loss(value, {"loss_generator": value.detach()})

    def _judge_pair(
        self, networks: Mapping[str, nn.Module], real: Batch, fake_NCHW: Tensor, label_N: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the logits of real and generated images, from one forward pass where images do not influence one
        another."""
        discriminator, label_real_N = networks["discriminator"], self._labels(real)
        if not self._judges_together:
            return discriminator(real.image_NCHW, label_real_N), discriminator(fake_NCHW, label_N)
        both_NCHW = torch.cat([real.image_NCHW, fake_NCHW])
        both_N = None if label_real_N is None or label_N is None else torch.cat([label_real_N, label_N])
        logits = discriminator(both_NCHW, both_N)
        return logits[: len(real.image_NCHW)], logits[len(real.image_NCHW) :]

    def _labels(self, batch: Batch) -> Tensor | None:
        return batch.label_N if self.facts.image.num_classes else None

    def latents(self, draws: Draws) -> Tensor:
        """Return standard normal latents [N, Z] of this turn's images."""
        return draws.normal("latent", int(self.networks["generator"].latent_dim))  # type: ignore[arg-type]

    def fake_labels(self, draws: Draws, real: Batch | None = None) -> Tensor | None:
        """Return labels [N] of generated images after the law `fake_labels`; None without classes."""
        num_classes = self.facts.image.num_classes
        if not num_classes:
            return None
        if self.settings.fake_labels == "batch" and real is not None:
            return real.label_N
        if self.settings.fake_labels == "uniform" or self.facts.label_counts is None:
            return draws.integers("label", num_classes)
        weight_K = torch.tensor(self.facts.label_counts, device=draws.index_N.device)
        return draws.categorical("label", weight_K)

    def after_turn(self, turn: Turn, stats: Mapping[str, float]) -> None:
        """Keep nothing: this game has no state between turns."""

    def judge(self, networks: Mapping[str, nn.Module], batch: Batch) -> Tensor:
        """Return the discriminator's logits for real images."""
        logits: Tensor = networks["discriminator"](batch.image_NCHW, self._labels(batch))
        return logits

    def sample(self, networks: Mapping[str, nn.Module], draws: Draws, settings: SampleSettings) -> Tensor:
        """Return images for truncated latents and the labels asked for (or drawn by the game's law)."""
        generator = networks["generator"]
        latent_NZ = settings.truncation.apply(draws, int(generator.latent_dim))  # type: ignore[arg-type]
        label_N = self.fake_labels(draws) if settings.label_N is None else settings.label_N
        image_NCHW: Tensor = generator(latent_NZ, label_N)
        return image_NCHW.float()
