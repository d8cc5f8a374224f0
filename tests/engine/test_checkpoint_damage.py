"""A damaged checkpoint is never used, the one before it is, on all ranks; none left is an error, no fresh start."""

import json
import os
import random
import shutil

import pytest

from bigtrain.engine.checkpoints import disk as checkpoint_disk
from bigtrain.engine.checkpoints import files as files_module
from bigtrain.engine.checkpoints.checkpoint import Checkpoints
from bigtrain.engine.checkpoints.files import RECORD, Manifest, committed, part_name, read_manifest
from bigtrain.engine.checkpoints.names import MANIFEST, folder_name
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import CheckpointError
from tests.engine.checkpoint_cases import is_state, load_alone, save, save_alone
from tests.rank_pool import run_ranks

FLIPS_PER_FILE = 40
FILES = [MANIFEST, RECORD, part_name(0, 2), part_name(1, 2)]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Checkpoints after 1 and 2 images, the second written by two ranks; copied for each damage."""
    folder = tmp_path_factory.mktemp("two")
    save_alone(folder, 1)
    run_ranks(2, save, folder, 2)
    return folder


@pytest.fixture
def damaged(two, tmp_path):
    """A copy whose newest checkpoint a test damages."""
    return shutil.copytree(two, tmp_path / "checkpoints")


def falls_back(folder):
    """Tell whether a load uses the first checkpoint, exactly, and has set the second one aside."""
    loaded = load_alone(folder)
    return is_state(loaded, 1) and committed(folder) == [1] and (folder / ".bad-000000000002").is_dir()


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_noticed(two, tmp_path, name):
    size = (two / folder_name(2) / name).stat().st_size
    draw = random.Random(name)
    bits = [0, size * 8 - 1] + [draw.randrange(size * 8) for _ in range(FLIPS_PER_FILE)]
    for bit in bits:
        folder = shutil.copytree(two, tmp_path / "checkpoints")
        flip(folder / folder_name(2) / name, bit)
        assert falls_back(folder), f"bit {bit} of {name} went unnoticed"
        shutil.rmtree(folder)


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", ["nothing", "half", "all but a byte", "a byte too many"])
def test_a_file_of_another_length_is_noticed(damaged, name, kept):
    path = damaged / folder_name(2) / name
    size = path.stat().st_size
    os.truncate(path, {"nothing": 0, "half": size // 2, "all but a byte": size - 1, "a byte too many": size + 1}[kept])
    assert falls_back(damaged)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_noticed(damaged, name):
    (damaged / folder_name(2) / name).unlink()
    assert falls_back(damaged)


@pytest.mark.parametrize("name", FILES)
def test_a_hole_of_zeros_is_noticed(damaged, name):
    path = damaged / folder_name(2) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 64] = bytes(64)
    path.write_bytes(content)
    assert falls_back(damaged)


def test_swapped_parts_are_noticed(damaged):
    first, second = (damaged / folder_name(2) / part_name(rank, 2) for rank in range(2))
    first.rename(first.with_suffix(".other"))
    second.rename(first)
    first.with_suffix(".other").rename(second)
    assert falls_back(damaged)


@pytest.mark.parametrize("name", [RECORD, part_name(0, 1)])
def test_files_of_another_checkpoint_are_noticed(tmp_path, name):
    save_alone(tmp_path, 1, 2)
    shutil.copy(tmp_path / folder_name(1) / name, tmp_path / folder_name(2) / name)
    assert falls_back(tmp_path)


def test_a_whole_checkpoint_under_anothers_name_is_noticed(tmp_path):
    save_alone(tmp_path, 1)
    shutil.copytree(tmp_path / folder_name(1), tmp_path / folder_name(2))
    assert falls_back(tmp_path)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"checksum": "0"}', b'{"format": 1}'])
def test_a_manifest_of_anything_else_is_noticed(damaged, text):
    (damaged / folder_name(2) / MANIFEST).write_bytes(text)
    assert falls_back(damaged)


def test_a_record_changed_together_with_its_size_is_noticed(damaged):
    record = damaged / folder_name(2) / RECORD
    record.write_text(record.read_text().replace('"discriminator": 3', '"discriminator": 4'))
    assert falls_back(damaged)


def test_a_manifest_edited_by_hand_is_noticed(damaged):
    path = damaged / folder_name(2) / MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"images": 2', b'"images": 3'))
    assert falls_back(damaged)


def test_a_manifest_written_anew_by_hand_is_noticed(damaged):
    path = damaged / folder_name(2) / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_bytes())))
    assert falls_back(damaged)


def test_a_sound_manifest_that_forgets_a_part_is_noticed(damaged):
    path = damaged / folder_name(2)
    files = read_manifest(path).files
    del files[part_name(1, 2)]
    (path / MANIFEST).write_bytes(Manifest(2, files).render())
    assert falls_back(damaged)


def load_or_sentence(ranks, folder):
    try:
        checkpoint = Checkpoints(folder, ranks).load_newest()
    except CheckpointError as error:
        return str(error), error.exit_status
    return None if checkpoint is None else checkpoint.images


@pytest.mark.two_process
def test_all_ranks_fall_back_together(damaged):
    flip(damaged / folder_name(2) / part_name(1, 2), 12345)
    assert run_ranks(2, load_or_sentence, damaged) == [1, 1]
    assert committed(damaged) == [1]


def load_with_bad_disk_on_rank_1(ranks, folder):
    if ranks.rank == 1:

        def fails(path):
            if path.parent.name == folder_name(2):
                raise OSError(5, "Input/output error")
            return read(path)

        read = files_module.read_checkpoint.__globals__["read_file"]
        files_module.read_checkpoint.__globals__["read_file"] = fails
    files_module.READ_PAUSE_S = 0.0
    return load_or_sentence(ranks, folder)


@pytest.mark.two_process
def test_what_one_rank_cannot_read_no_rank_uses(damaged):
    assert run_ranks(2, load_with_bad_disk_on_rank_1, damaged) == [1, 1]
    assert committed(damaged) == [1]


@pytest.mark.two_process
def test_none_left_is_status_4_now_and_at_every_later_start(damaged):
    for images in (1, 2):
        (damaged / folder_name(images) / RECORD).write_text("{}")
    for _ in range(2):
        for sentence, exit_status in run_ranks(2, load_or_sentence, damaged):
            assert "none of them verifies" in sentence
            assert "move the folder away" in sentence
            assert exit_status == 4
    assert sorted(path.name for path in damaged.iterdir()) == [".bad-000000000001", ".bad-000000000002"]


def test_a_second_damaged_one_of_the_same_name_is_set_aside_too(tmp_path):
    for _ in range(3):
        save_alone(tmp_path, 1)
        (tmp_path / folder_name(1) / RECORD).write_text("{}")
        with pytest.raises(CheckpointError, match="none of them verifies"):
            load_alone(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".bad-000000000001{end}" for end in ("", ".2", ".3")]


def test_what_may_not_be_read_is_not_taken_for_damaged(tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    save_alone(tmp_path, 1, 2)
    monkeypatch.setattr(files_module, "read_checkpoint", forbidden)
    with pytest.raises(CheckpointError, match="Permission denied"):
        Checkpoints(tmp_path, Ranks.single()).load_newest()
    assert committed(tmp_path) == [2, 1]


def test_a_file_system_that_was_away_for_a_moment_costs_nothing(tmp_path, monkeypatch):
    read, failures = files_module.read_checkpoint, [OSError(116, "Stale file handle")] * 2

    def stumbles(path):
        if failures:
            raise failures.pop()
        return read(path)

    save_alone(tmp_path, 1, 2)
    monkeypatch.setattr(files_module, "read_checkpoint", stumbles)
    monkeypatch.setattr(files_module, "READ_PAUSE_S", 0.0)
    assert is_state(Checkpoints(tmp_path, Ranks.single()).load_newest(), 2)


def test_what_cannot_be_set_aside_stops_the_run(damaged, monkeypatch):
    def read_only(old, new):
        raise OSError(30, "Read-only file system")

    (damaged / folder_name(2) / RECORD).write_text("{}")
    monkeypatch.setattr(checkpoint_disk, "rename", read_only)
    with pytest.raises(CheckpointError, match=r"record.json has 2 bytes instead of .* Read-only file system"):
        load_alone(damaged)
