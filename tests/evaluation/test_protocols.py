"""Named protocols: each says what it fixes and how ours departs from it, and refuses options that contradict it."""

import re

import pytest

from bigtrain.evaluation.judge import Judgement
from bigtrain.evaluation.options import Options, metric_names
from bigtrain.evaluation.protocols import PROTOCOLS, NamedProtocol
from bigtrain.evaluation.subjects import Pictures
from bigtrain.evaluation.table import protocol_lines, tables
from bigtrain.recipe.errors import UsageError
from bigtrain.sampling.truncation import Truncation


class FewImages:
    """A set of images that nobody reads."""

    place, num_images = "few", 50_000


NAMES = {"stylegan-fid50k-full", "biggan-tf", "adm", "studiogan", "clean-fid", "torch-fidelity"}


@pytest.fixture(params=list(PROTOCOLS))
def protocol(request: pytest.FixtureRequest) -> NamedProtocol:
    """Each of them."""
    return PROTOCOLS.get(request.param)


def test_all_are_there() -> None:
    assert set(PROTOCOLS) == NAMES


def test_each_says_what_it_is_and_how_ours_departs(protocol: NamedProtocol) -> None:
    assert re.search(r"\d{4}", protocol.source)
    assert protocol.differences
    assert protocol.reference
    assert metric_names(protocol.metrics) == protocol.metrics
    lines = "\n".join(protocol_lines({"seed": 0, "named": protocol.record()}))
    assert all(words in lines for words in (protocol.name, protocol.source, *protocol.differences))


def test_options_that_agree_are_taken_and_others_refused(protocol: NamedProtocol) -> None:
    assert Options(protocol=protocol, metrics=protocol.metrics[:1], num_images=protocol.num_images)
    if protocol.num_images is not None:
        with pytest.raises(
            UsageError, match=f"--protocol {protocol.name} fixes --num 50000, and the command line says 9"
        ):
            Options(protocol=protocol, num_images=9)
    with pytest.raises(UsageError, match="fixes --metrics"):
        Options(protocol=protocol, metrics=("fd_random",))


def test_truncation_is_fixed_where_the_protocol_draws_without() -> None:
    with pytest.raises(UsageError, match="fixes --truncation none"):
        Options(protocol=PROTOCOLS.get("stylegan-fid50k-full"), truncation=Truncation("psi", 0.7))
    assert Options(protocol=PROTOCOLS.get("adm"), truncation=Truncation("resample", 0.7))


def test_a_protocol_brings_its_settings() -> None:
    images = Pictures(FewImages())
    clean = Options(protocol=PROTOCOLS.get("clean-fid"), num_images=50_000).settings(images)
    assert clean.extractor_settings["inception"].resize == "clean"
    assert clean.covariance_divisor == "n-1"
    stylegan = Options(protocol=PROTOCOLS.get("stylegan-fid50k-full")).settings(images)
    assert (stylegan.num_images, stylegan.covariance_divisor) == (50_000, "n")
    studiogan = Options(protocol=PROTOCOLS.get("studiogan")).settings(images)
    assert (studiogan.score.splits, studiogan.prdc.neighbours, studiogan.prdc.density_neighbours) == (1, 5, 5)
    adm = Options(protocol=PROTOCOLS.get("adm")).settings(images)
    assert (adm.score.splits, adm.prdc.neighbours, adm.prdc.max_images) == (10, 3, 50_000)
    several = Options(metrics=("fd_random", "fid"), resize="clean", num_images=9).settings(images)
    assert several.extractor_settings["inception"].resize == "clean"
    plain = Options(metrics=("fid",), num_images=9).settings(images)
    assert plain.extractor_settings["inception"].resize == "tensorflow"
    with pytest.raises(UsageError, match="fixes --resize clean"):
        Options(protocol=PROTOCOLS.get("clean-fid"), resize="tensorflow")


def test_prdc_alone_is_in_the_features_of_the_first_metric() -> None:
    assert metric_names(["fd_random", "prdc"]) == ("fd_random", "prdc_random")
    assert metric_names(["prdc", "fid"]) == ("prdc_inception", "fid")
    assert Options(protocol=PROTOCOLS.get("adm"), metrics=("fid", "prdc"))


def test_tables_keep_protocols_apart_and_say_in_what() -> None:
    def judged(label: str, seed: int, torch: str) -> Judgement:
        protocol = {"extractor": "x", "sampling": {"seed": seed}, "versions": {"torch": torch}}
        return Judgement(label, 1, {"fid": 1.5}, protocol, "fid-x")

    one = list(tables([judged("a", 0, "2.0"), judged("b", 0, "2.1")]))  # versions do not keep figures apart
    assert one == ["   fid", "a  1.5", "b  1.5"]
    two = list(tables([judged("a", 0, "2.0"), judged("b", 1, "2.0"), judged("c", 0, "2.0")]))
    assert two[0] == "2 protocols: figures of different tables do not compare"
    assert "protocol 1: sampling.seed 0" in two
    assert "protocol 2: sampling.seed 1" in two
    assert two.index("c  1.5") < two.index("protocol 2: sampling.seed 1")
