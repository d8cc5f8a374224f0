"""A killed packing goes on where it was, and images of one content are noticed."""

import os
import signal
from dataclasses import replace

import pytest

from bigtrain.data.check import check_folder
from bigtrain.data.disk import ASIDE, LOCK_NAME
from bigtrain.data.folder import find
from bigtrain.data.pack import PackOptions, pack
from bigtrain.data.sources.found import read_file
from bigtrain.recipe.errors import DataError
from tests.data.cats_and_dogs import write_cats_and_dogs
from tests.data.test_foreign import picture

OPTIONS = PackOptions(4, image_format="png", shard_mb=0.012)
COUNT = 20


class Opener:
    """Counts what is opened, and kills its process when asked to open one image too many."""

    def __init__(self, most=1 << 30, kill=True):
        self.opened, self.most, self.kill = [], most, kill

    def __call__(self, source):
        self.opened.append(source.path)
        if len(self.opened) > self.most:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
        return read_file(source)


@pytest.fixture
def source(tmp_path):
    return write_cats_and_dogs(tmp_path / "source", COUNT)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK_NAME}


def packed_by_a_killed_process(source, folder, most):
    child = os.fork()
    if child == 0:
        try:
            pack(replace(find(source), open=Opener(most)), folder, OPTIONS)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("most", [COUNT + 1, COUNT + 9, 2 * COUNT - 1])
def test_a_killed_packing_goes_on_without_redoing_finished_shards(source, tmp_path, most):
    whole = pack(find(source), tmp_path / "whole", OPTIONS).index
    assert len(whole.shards) > 2
    packed_by_a_killed_process(source, tmp_path / "out", most)
    opened = most - COUNT  # every image is probed once to learn its size
    finished = sum(sum(entry.samples for entry in whole.shards[: at + 1]) <= opened for at in range(len(whole.shards)))
    opener = Opener()
    report = pack(replace(find(source), open=opener), tmp_path / "out", OPTIONS)
    assert report.taken_up == finished
    redone = sum(entry.samples for entry in whole.shards[finished:])
    assert len(opener.opened) == COUNT + redone
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert check_folder(tmp_path / "out", 8).faults == ()


def test_an_interruption_by_hand_keeps_finished_shards_too_and_another_jobs_count_takes_them_up(source, tmp_path):
    pack(find(source), tmp_path / "whole", OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        pack(replace(find(source), open=Opener(2 * COUNT - 1, kill=False)), tmp_path / "out", OPTIONS)
    assert pack(find(source), tmp_path / "out", OPTIONS, jobs=2).taken_up > 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("change", ["content", "option", "shard", "note"])
def test_shards_of_another_plan_and_damaged_ones_are_written_again(source, tmp_path, change):
    packed_by_a_killed_process(source, tmp_path / "out", 2 * COUNT - 1)
    aside = sorted((tmp_path / "out").glob(f"{ASIDE}*-000000.*"))
    assert [path.suffix for path in aside] == [".json", ".tar"]
    options, taken_up = OPTIONS, 0
    if change == "content":
        (source / "cat" / "0.png").write_bytes(picture(99))
    elif change == "option":
        options = replace(OPTIONS, filter="box")
    else:
        path = aside[change == "shard"]
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
        taken_up = len(list((tmp_path / "out").glob(f"{ASIDE}*.json"))) - 1
    assert pack(find(source), tmp_path / "out", options).taken_up == taken_up
    pack(find(source), tmp_path / "whole", options)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_images_of_equal_content_are_reported_and_dropped_when_asked(source, tmp_path):
    for name, number in (("cat/copy.png", 0), ("dog/copy.png", 0), ("dog/z.png", 3)):
        (source / name).write_bytes(picture(number))
    kept = pack(find(source), tmp_path / "kept", OPTIONS, jobs=2)
    assert kept.index.num_samples == COUNT + 3
    found = {(one.path.relative_to(source).as_posix(), one.first.name, one.same_label) for one in kept.duplicates}
    assert found == {("cat/copy.png", "0.png", True), ("dog/copy.png", "0.png", False), ("dog/z.png", "3.png", True)}
    for jobs in (1, 3):
        dropped = pack(find(source), tmp_path / str(jobs), replace(OPTIONS, duplicates="drop"), jobs=jobs)
        assert dropped.index.num_samples == COUNT
        assert set(dropped.duplicates) == set(kept.duplicates)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def test_sizes_are_counted(source, tmp_path):
    (source / "cat" / "large.png").write_bytes(picture(1, side=9))
    report = pack(find(source), tmp_path / "out", OPTIONS, jobs=2)
    assert report.sizes == {"4x4": COUNT, "9x9": 1}


def test_a_file_that_goes_away_is_a_rejection_and_no_crash(source, tmp_path):
    found = find(source)
    (source / "cat" / "0.png").unlink()
    with pytest.raises(DataError, match=r"1 of 20 files cannot be used: .*0.png .*No such file"):
        pack(found, tmp_path / "out", OPTIONS)
    assert not list((tmp_path / "out").glob(f"{ASIDE}*"))
