"""Files of reference tensors of the BigGAN family, and how far our networks with their weights are from them."""

from pathlib import Path

import torch.nn.functional as F
from safetensors import safe_open

from bigtrain.interop import load_released
from bigtrain.interop.transfer import renamed
from bigtrain.networks.layers.statistics import running_statistics_names

REFERENCE = Path(__file__).parent.parent / "reference"
NO_GRADIENT = 1e-6  # of the file's largest gradient norm: below it the difference counts, not the ratio


def difference(ours, reference):
    """Return |ours - reference| / |reference|."""
    return float((ours - reference).detach().norm() / reference.norm())


class Reference:
    """One file of reference tensors, and our networks with its weights.

    `rules` turn our names into the released ones: those of the generator and those of the discriminator.
    """

    def __init__(self, name, kind, *rules):
        with safe_open(REFERENCE / f"{name}.safetensors", "pt") as file:
            self.config = file.metadata()
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        self.rules = dict(zip("GD", rules, strict=True))
        self.latent_NZ, self.label_N, self.real_NCHW = (self.tensors[f"in.{key}"] for key in ("z", "y", "real"))
        self.generator = load_released(kind, "generator", self.config, self.part("G."))
        self.discriminator = load_released(kind, "discriminator", self.config, self.part("D."))

    def part(self, prefix):
        """Return the tensors under a prefix, without it."""
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}

    def image_difference(self):
        """Return how far images in eval mode are."""
        return difference(self.generator(self.latent_NZ, self.label_N), self.tensors["out.image_eval"])

    def discriminator_differences(self):
        """Return how far logits, hinge loss and the discriminator's gradients are, by name, in eval mode."""
        real_N = self.discriminator(self.real_NCHW, self.label_N)
        fake_N = self.discriminator(self.tensors["out.image_eval"], self.label_N)
        loss = F.relu(1 - real_N).mean() + F.relu(1 + fake_N).mean()
        loss.backward()
        return {
            "d_real": difference(real_N, self.tensors["out.d_real_eval"].squeeze(1)),
            "d_fake": difference(fake_N, self.tensors["out.d_fake_eval"].squeeze(1)),
            "d_hinge_loss": difference(loss, self.tensors["out.d_hinge_loss"]),
            **self._gradient_differences("d_hinge_loss", "D", self.discriminator),
        }

    def generator_differences(self):
        """Return how far images, hinge loss, the generator's gradients and the BatchNorm statistics after the forward
        are, by name, in train mode."""
        generator = self.generator.train()
        image_NCHW = generator(self.latent_NZ, self.label_N)
        loss = -self.discriminator(image_NCHW, self.label_N).mean()
        loss.backward()
        own = {renamed(name, self.rules["G"]): value for name, value in generator.state_dict().items()}
        after = self.part("G_after.")
        assert set(after) == {renamed(name, self.rules["G"]) for name in running_statistics_names(generator)}
        return {
            "image_train": difference(image_NCHW, self.tensors["out.image_train"]),
            "g_hinge_loss": difference(loss, self.tensors["out.g_hinge_loss_train"]),
            **self._gradient_differences("g_hinge_loss_train", "G", generator),
            **{f"after.{name}": difference(own[name], value) for name, value in after.items()},
        }

    def _gradient_differences(self, loss, part, network):
        own = {renamed(name, self.rules[part]): parameter.grad for name, parameter in network.named_parameters()}
        largest = max(value.norm() for key, value in self.tensors.items() if key.startswith("grad."))
        found = {}
        for name, reference in self.part(f"grad.{loss}.{part}.").items():
            gradient = own[name.removesuffix("[::16]")]
            gradient = gradient[::16] if name.endswith("[::16]") else gradient
            norm = reference.norm() if reference.norm() > NO_GRADIENT * largest else largest
            found[f"grad.{name}"] = float((gradient - reference).norm() / norm)
        return found
