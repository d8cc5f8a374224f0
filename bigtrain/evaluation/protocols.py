"""Protocols that papers and their code have made known, each as a record: what it fixes, and how ours departs from it.

One generator gets other figures under another protocol: the official BigGAN-deep of 256 px was measured with a FID of
6.95 by some and of 11.3 by others. So a figure is put beside a paper's only under that paper's protocol, and even then
its differences are printed with it. What a record fixes cannot be given as an option with another value.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bigtrain.recipe.errors import UsageError
from bigtrain.recipe.registry import Registry

PROTOCOLS = Registry("protocol")

TORCHSCRIPT = (
    "features come from torch-fidelity's port of the TensorFlow graph, not from NVIDIA's TorchScript file of the same "
    "graph; a published StyleGAN2 for FFHQ of 1024 px was measured as 2.87 with that file and as 2.81 with another "
    "PyTorch Inception"
)


@dataclass(frozen=True)
class NamedProtocol:
    """What a protocol fixes, and what a reader of its figures should know."""

    name: str
    source: str
    """Paper and code."""
    metrics: tuple[str, ...]
    """What it reports."""
    num_images: int | None
    """Generated images; None: as many as one likes, all of a set of images."""
    reference: str
    """Which real images, in words: they are the user's to give."""
    resize: str
    """How images come to 299 pixels: a name of the extractor's option `resize`."""
    covariance_divisor: str
    """`N - 1` or `N`: what covariances of N images are divided by."""
    differences: tuple[str, ...]
    """How ours departs from the original, a sentence each."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Further options and their values."""
    settings: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Further settings of the evaluation, by section and key."""

    def record(self) -> dict[str, Any]:
        """Return it as JSON values, for the protocol of a figure."""
        return {
            "name": self.name,
            "source": self.source,
            "reference": self.reference,
            "resize": self.resize,
            "covariance_divisor": self.covariance_divisor,
            "differences": list(self.differences),
        }

    def require(self, given: Mapping[str, Any]) -> None:
        """Refuse options that say something else than the protocol.

        Args:
            given: options by name, only those that the user has given.

        Raises:
            UsageError: one contradicts it.
        """
        said = {"metrics": self.metrics, "num": self.num_images, "resize": self.resize, **self.fixed}
        for option, value in given.items():
            wanted = said.get(option)
            contradicts = not set(value) <= set(wanted) if option == "metrics" and wanted else value != wanted
            if wanted is not None and contradicts:
                shown = ",".join(wanted) if option == "metrics" else wanted
                raise UsageError(
                    f"--protocol {self.name} fixes --{option} {shown}, and the command line says "
                    f"{','.join(value) if option == 'metrics' else value}; leave one of the two out"
                )


def _add(protocol: NamedProtocol) -> None:
    PROTOCOLS.add(protocol.name)(protocol)


_add(
    NamedProtocol(
        name="stylegan-fid50k-full",
        source="fid50k_full of StyleGAN2-ADA and StyleGAN3 (Karras et al. 2020, arXiv:2006.06676)",
        metrics=("fid",),
        num_images=50_000,
        reference="all images of the training set, not mirrored",
        resize="tensorflow",
        covariance_divisor="N",
        differences=(
            TORCHSCRIPT,
            "noise inputs of the generator are the constant ones here and drawn for each image there",
            "labels follow the law that the recipe trained with here, and that of the training set there",
        ),
        fixed={"truncation": "none"},
    )
)
_add(
    NamedProtocol(
        name="biggan-tf",
        source="BigGAN (Brock et al. 2019, arXiv:1809.11096)",
        metrics=("fid", "is"),
        num_images=50_000,
        reference="the training set at the generator's resolution",
        resize="tensorflow",
        covariance_divisor="N - 1",
        differences=(
            "the TensorFlow graph itself is replaced by torch-fidelity's port of it; PyTorch's own Inception, which is "
            "not used, moves the inception score of one BigGAN from 97.35 to 93.09",
            "standing statistics run over 16 batches of 256 images unless --standing says otherwise, over about 100 "
            "batches there",
            "some figures of the paper are the best of a truncation sweep: use --truncation-curve",
        ),
    )
)
_add(
    NamedProtocol(
        name="adm",
        source="evaluator of ADM (Dhariwal and Nichol 2021, arXiv:2105.05233)",
        metrics=("fid", "is", "prdc_inception"),
        num_images=50_000,
        reference="the training set; precision and recall there against 10,000 of its images",
        resize="tensorflow",
        covariance_divisor="N - 1",
        differences=(
            "the TensorFlow graph itself is replaced by torch-fidelity's port of it",
            "its reference files hold moments (mu, sigma) and 10,000 images (arr_0), and --real FILE takes the FID to "
            "the moments and precision and recall to the images, as there; another --real serves for all of them",
            "parts of the inception score are dealt at random here, and are 5,000 images in their order there",
            "sFID, in the features of an inner layer, is not made",
        ),
        settings={"prdc": {"neighbours": 3, "max_images": 50_000}},
    )
)
_add(
    NamedProtocol(
        name="studiogan",
        source="PyTorch-StudioGAN (Kang et al. 2022, arXiv:2206.09479)",
        metrics=("fid", "is", "prdc_inception"),
        num_images=50_000,
        reference="training set of CIFAR-10, validation set of ImageNet; look into the table that is compared with",
        resize="tensorflow",
        covariance_divisor="N - 1",
        differences=(
            "StudioGAN reports figures under several resizes; this is the one of TensorFlow, its `legacy`, and tables "
            "with `clean` or `friendly` do not compare",
            "the number of generated images there is that of the reference for small data sets: give --real what its "
            "table says",
            "balls of precision and recall are closed here and open there",
            "the official BigGAN of 128 px gets 7.66 and an inception score of 128.5 there, 10.14 and 96.7 in another "
            "collection of models",
        ),
        settings={
            "score": {"splits": 1},
            "prdc": {"neighbours": 5, "density_neighbours": 5, "max_images": 50_000},
        },
    )
)
_add(
    NamedProtocol(
        name="clean-fid",
        source="clean-fid (Parmar et al. 2022, arXiv:2104.11222)",
        metrics=("fid", "kid"),
        num_images=50_000,
        reference="the training set as its table says (FFHQ: 50,000 or 70,000 images), resized by the same filter",
        resize="clean",
        covariance_divisor="N - 1",
        differences=(
            "features come from torch-fidelity's port of the TensorFlow graph, not from TorchScript's",
            "kernel distances are averaged over the subsets of our settings (100 of 1,000 images)",
        ),
    )
)
_add(
    NamedProtocol(
        name="torch-fidelity",
        source="torch-fidelity 0.4.0 (Obukhov et al. 2020)",
        metrics=("fid", "kid", "is", "prdc_vgg16"),
        num_images=None,
        reference="whatever --input2 is there",
        resize="tensorflow",
        covariance_divisor="N - 1",
        differences=(
            "moments are summed in float64 here",
            "all metrics see an image in one pass here",
            "kernel distance, precision and recall look at 10,000 images of each set at most here, and at all there",
        ),
    )
)
