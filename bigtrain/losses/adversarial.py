"""Adversarial objectives: what discriminator and generator minimise, as functions of raw logits.

Every objective takes logits of any shape (one a image, one a patch) and returns the mean over all of them, so neither
the batch nor the number of patches changes the size of a step. Logits are raw: no sigmoid before, D(x) = sigmoid(logit)
where a paper speaks of probabilities. A non-finite logit stays visible in the loss.

Notation: r = logit of a real image, f = logit of a generated one, softplus(t) = log(1 + exp(t)).
"""

from typing import ClassVar, Protocol

from torch import Tensor
from torch.nn.functional import relu, softplus

from bigtrain.recipe.registry import Registry

OBJECTIVES = Registry("objective")


class Objective(Protocol):
    """What a game asks of an objective; both losses are scalars to be minimised."""

    needs_real_in_generator: ClassVar[bool]
    """Whether the generator's loss reads the logits of real images (relativistic objectives do)."""

    @staticmethod
    def discriminator(logit_real: Tensor, logit_fake: Tensor) -> Tensor:
        """Loss of the discriminator's turn."""
        ...

    @staticmethod
    def generator(logit_fake: Tensor, logit_real: Tensor | None = None) -> Tensor:
        """Loss of the generator's turn; `logit_real` is read only where `needs_real_in_generator`."""
        ...


@OBJECTIVES.add("hinge")
class Hinge:
    """Hinge objective (Lim and Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, eq. 16-17).

    Discriminator: E[max(0, 1 - r)] + E[max(0, 1 + f)]; generator: -E[f].
    """

    needs_real_in_generator: ClassVar[bool] = False

    @staticmethod
    def discriminator(logit_real: Tensor, logit_fake: Tensor) -> Tensor:
        """Zero when every real logit is at least 1 and every fake one at most -1."""
        return relu(1 - logit_real).mean() + relu(1 + logit_fake).mean()

    @staticmethod
    def generator(logit_fake: Tensor, logit_real: Tensor | None = None) -> Tensor:
        """Minus the mean fake logit: the gradient of each logit is -1 / N, however wrong it is."""
        return -logit_fake.mean()


@OBJECTIVES.add("non_saturating")
class NonSaturating:
    """Non-saturating objective (Goodfellow et al. 2014, arXiv:1406.2661, section 3).

    Discriminator: E[softplus(-r)] + E[softplus(f)], that is -log D(x) - log(1 - D(G(z))); generator: E[softplus(-f)],
    that is -log D(G(z)).
    """

    needs_real_in_generator: ClassVar[bool] = False

    @staticmethod
    def discriminator(logit_real: Tensor, logit_fake: Tensor) -> Tensor:
        """Binary cross entropy, summed over the two halves: 2 log 2 for logits of zero."""
        return softplus(-logit_real).mean() + softplus(logit_fake).mean()

    @staticmethod
    def generator(logit_fake: Tensor, logit_real: Tensor | None = None) -> Tensor:
        """Gradient of each logit is -sigmoid(-f) / N: largest where the discriminator is surest."""
        return softplus(-logit_fake).mean()


@OBJECTIVES.add("minimax")
class Minimax:
    """Minimax (saturating) objective (Goodfellow et al. 2014, arXiv:1406.2661, eq. 1).

    The discriminator's loss is the non-saturating one; the generator minimises E[log(1 - D(G(z)))] = -E[softplus(f)].
    """

    needs_real_in_generator: ClassVar[bool] = False

    @staticmethod
    def discriminator(logit_real: Tensor, logit_fake: Tensor) -> Tensor:
        """Minus the value of the game: 2 log 2 for logits of zero."""
        return NonSaturating.discriminator(logit_real, logit_fake)

    @staticmethod
    def generator(logit_fake: Tensor, logit_real: Tensor | None = None) -> Tensor:
        """Gradient of each logit is -sigmoid(f) / N: vanishes where the discriminator is sure, hence the name."""
        return -softplus(logit_fake).mean()


@OBJECTIVES.add("least_squares")
class LeastSquares:
    """Least squares objective with targets 0 and 1 (Mao et al. 2017, arXiv:1611.04076, eq. 9).

    Discriminator: E[(r - 1)^2] / 2 + E[f^2] / 2; generator: E[(f - 1)^2] / 2.
    """

    needs_real_in_generator: ClassVar[bool] = False

    @staticmethod
    def discriminator(logit_real: Tensor, logit_fake: Tensor) -> Tensor:
        """Zero when every real logit is 1 and every fake one is 0."""
        return 0.5 * (logit_real - 1).square().mean() + 0.5 * logit_fake.square().mean()

    @staticmethod
    def generator(logit_fake: Tensor, logit_real: Tensor | None = None) -> Tensor:
        """Zero when every fake logit is 1."""
        return 0.5 * (logit_fake - 1).square().mean()


@OBJECTIVES.add("wasserstein")
class Wasserstein:
    """Wasserstein objective (Arjovsky et al. 2017, arXiv:1701.07875, eq. 2 and algorithm 1).

    Critic: E[f] - E[r]; generator: -E[f]. The critic must be kept Lipschitz by something else (gradient penalty,
    spectral norm): alone this loss has no lower bound.
    """

    needs_real_in_generator: ClassVar[bool] = False

    @staticmethod
    def discriminator(logit_real: Tensor, logit_fake: Tensor) -> Tensor:
        """Minus the estimated distance: unchanged when a constant is added to every logit."""
        return logit_fake.mean() - logit_real.mean()

    @staticmethod
    def generator(logit_fake: Tensor, logit_real: Tensor | None = None) -> Tensor:
        """Minus the mean fake logit."""
        return -logit_fake.mean()


@OBJECTIVES.add("relativistic")
class Relativistic:
    """Relativistic pairing objective (Jolicoeur-Martineau 2018, arXiv:1807.00734; in R3GAN arXiv:2501.05441, eq. 2).

    Each fake logit is compared with the real logit at the same place: discriminator E[softplus(f - r)], generator
    E[softplus(r - f)]. The generator's turn therefore reads real images too.
    """

    needs_real_in_generator: ClassVar[bool] = True

    @staticmethod
    def discriminator(logit_real: Tensor, logit_fake: Tensor) -> Tensor:
        """Log 2 where real and fake logits are equal; unchanged when a constant is added to every logit."""
        _assert_pairs(logit_real, logit_fake)
        return softplus(logit_fake - logit_real).mean()

    @staticmethod
    def generator(logit_fake: Tensor, logit_real: Tensor | None = None) -> Tensor:
        """The discriminator's loss with the roles exchanged."""
        assert logit_real is not None, "relativistic: the generator's turn needs the logits of real images"
        _assert_pairs(logit_real, logit_fake)
        return softplus(logit_real - logit_fake).mean()


def _assert_pairs(logit_real: Tensor, logit_fake: Tensor) -> None:
    # [N] against [N, 1] would broadcast to every pair and train something else without a word.
    assert logit_real.shape == logit_fake.shape, (
        f"relativistic: logits come in pairs, got real {tuple(logit_real.shape)} and fake {tuple(logit_fake.shape)}"
    )
