"""The Inception extractor with seeded random weights, and every way in which a weight file can be missing or wrong.

No published weights are used: what is checked is the plumbing, not the value of a published figure.
"""

import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from bigtrain.metrics import weights
from bigtrain.metrics.exchange import ONE_PROCESS
from bigtrain.metrics.extractors import inception
from bigtrain.metrics.extractors.clean_resize import clean_resize
from bigtrain.metrics.extractors.inception import InceptionSettings
from bigtrain.metrics.features import Extractor, RealImages
from bigtrain.metrics.weights import INCEPTION, WeightStore
from bigtrain.recipe.errors import RecipeError, WeightsError
from bigtrain.recipe.image import ImageSpec

CPU = torch.device("cpu")


def real_of(channels: int) -> RealImages:
    image = torch.zeros(4, channels, 32, 32, dtype=torch.uint8)
    return RealImages(ImageSpec(32, channels, 0), 4, "x", lambda numbers: (image[list(numbers)], torch.zeros(4).long()))


def build(path: Path | None, channels: int = 3) -> Extractor:
    settings = InceptionSettings(weights=None if path is None else str(path))
    return settings.build(real_of(channels), Path("/nowhere"), CPU, ONE_PROCESS)


@pytest.fixture(scope="module")
def extractor(inception_weights: Path) -> Extractor:
    return build(inception_weights)


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No weights at the default place, no word about being offline; returns the default place."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("BIGTRAIN_WEIGHTS", raising=False)
    return WeightStore().places()[-1] / INCEPTION.name


def publish(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    """Let the file be published elsewhere, or be another one."""
    monkeypatch.setattr(inception, "INCEPTION", replace(INCEPTION, **changes))


def pictures(channels: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (2, channels, 32, 32), dtype=torch.uint8, generator=generator)


def test_features_are_torch_fidelitys(extractor: Extractor, inception_weights: Path):
    theirs = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(inception_weights)
    )
    layers = extractor.layers(pictures(3))
    assert layers.logit_NK is not None
    assert (layers.feature_ND.shape, layers.logit_NK.shape) == ((2, 2048), (2, 1008))
    assert layers.feature_ND.dtype == torch.float32
    assert layers.feature_ND.std() > 0
    for ours, other in zip((layers.feature_ND, layers.logit_NK), theirs(pictures(3)), strict=True):
        assert torch.equal(ours, other)


def test_figures_carry_the_known_names(extractor: Extractor, inception_weights: Path):
    assert (extractor.figure_prefix, extractor.kernel_prefix, extractor.dims) == ("fid", "kid", 2048)
    assert extractor.fingerprint == hashlib.sha256(inception_weights.read_bytes()).hexdigest()


def test_gray_images_count_as_rgb_of_equal_channels(extractor: Extractor):
    gray = pictures(1)
    assert torch.equal(extractor(gray), extractor(gray.expand(-1, 3, -1, -1).contiguous()))


def test_images_with_alpha_are_refused():
    with pytest.raises(RecipeError, match="gray or RGB images, and the shards have 4 channels"):
        build(None, channels=4)


def test_named_file_that_is_missing_is_named(tmp_path: Path, empty_home: Path):
    with pytest.raises(WeightsError) as caught:
        build(tmp_path / "none.pth")
    assert str(tmp_path / "none.pth") in str(caught.value)
    assert "weights-inception-2015-12-05-6726825d.pth" in str(caught.value)


def test_offline_without_weights_says_which_file_goes_where(empty_home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(weights.urllib.request, "urlopen", lambda *a, **k: pytest.fail("tried to download"))
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE forbids") as caught:
        build(None)
    assert str(empty_home.parent) in str(caught.value)
    assert empty_home.name == "weights-inception-2015-12-05-6726825d.pth"
    assert "key `weights`" in str(caught.value)


def test_absent_network_is_an_error_soon(empty_home: Path, monkeypatch: pytest.MonkeyPatch):
    publish(monkeypatch, source="http://127.0.0.1:9/weights.pth")
    started_s = time.monotonic()
    with pytest.raises(WeightsError, match="the download failed"):
        build(None)
    assert time.monotonic() - started_s < 60
    assert list(empty_home.parent.iterdir()) == []


def test_silent_server_is_an_error_soon(empty_home: Path, monkeypatch: pytest.MonkeyPatch):
    class Silent(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(2)

    monkeypatch.setattr(weights, "DOWNLOAD_TIMEOUT_S", 0.3)
    with serve(Silent) as url:
        publish(monkeypatch, source=url)
        with pytest.raises(WeightsError, match="timed out"):
            build(None)


def test_download_is_checked_and_kept(empty_home: Path, inception_weights: Path, monkeypatch: pytest.MonkeyPatch):
    with serve(files_of(inception_weights)) as url:
        publish(monkeypatch, source=url)
        with pytest.raises(WeightsError, match="does not start with 6726825d"):
            build(None)
        assert list(empty_home.parent.iterdir()) == []
        sha256 = hashlib.sha256(inception_weights.read_bytes()).hexdigest()
        publish(monkeypatch, source=url, sha256_start=sha256[:8])
        assert WeightStore().get(inception.INCEPTION).path == empty_home
    assert empty_home.read_bytes() == inception_weights.read_bytes()
    assert list(empty_home.parent.iterdir()) == [empty_home]
    assert WeightStore().get(inception.INCEPTION).origin == "published"  # the server is gone by now


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "other"])
def test_file_that_is_no_inception_is_refused(tmp_path: Path, inception_weights: Path, damage: str):
    path = tmp_path / "bad.pth"
    whole = inception_weights.read_bytes()
    if damage == "other":
        torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    else:
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "text": b"not weights at all"}[damage])
    with pytest.raises(WeightsError, match="cannot be read") as caught:
        build(path)
    assert str(path) in str(caught.value)


class Intruder:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (self.mark,))


def test_file_that_would_run_code_is_refused_and_not_run(tmp_path: Path):
    torch.save({"weight": Intruder(tmp_path / "mark")}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="cannot be read"):
        build(tmp_path / "evil.pth")
    assert not (tmp_path / "mark").exists()


def files_of(path: Path) -> type[http.server.BaseHTTPRequestHandler]:
    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    return Server


@contextmanager
def serve(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/weights.pth"
        finally:
            server.shutdown()
            thread.join()


def test_the_resize_of_clean_fid_is_pillows_and_another_protocol(inception_weights: Path, extractor: Extractor):
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    resized = clean_resize(image)
    for number, channel in ((0, 0), (1, 2)):
        pillow = Image.fromarray(image[number, channel].numpy().astype("float32"))
        theirs = torch.tensor(numpy.asarray(pillow.resize((299, 299), Image.Resampling.BICUBIC)))
        assert (resized[number, channel] - theirs.clamp(0, 255)).abs().max() < 0.01
    settings = InceptionSettings(weights=str(inception_weights), resize="clean")
    clean = settings.build(real_of(3), Path("/nowhere"), CPU, ONE_PROCESS)
    assert clean.name != extractor.name  # what is cached is cached under the name
    assert "clean-fid" in clean.facts["resize"]
    side = torch.randint(0, 256, (1, 3, 299, 299), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours, theirs = clean.layers(side), extractor.layers(side)  # nothing to resize: one network
    assert torch.allclose(ours.feature_ND, theirs.feature_ND, rtol=1e-4, atol=1e-6)
    assert torch.allclose(ours.logit_NK, theirs.logit_NK, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(clean(image), extractor(image), rtol=1e-3)
