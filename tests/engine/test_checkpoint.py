"""Checkpoints: what is saved comes back to the last bit, on any number of ranks, and the right ones are kept."""

import json
import os
import time

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save_file as reference_save

from bigtrain.engine.checkpoints import disk
from bigtrain.engine.checkpoints.checkpoint import Checkpoints, deal
from bigtrain.engine.checkpoints.disk import FileFacts
from bigtrain.engine.checkpoints.files import (
    FORMAT,
    RECORD,
    DamagedCheckpointError,
    Manifest,
    _render,
    committed,
    newest_complete,
    parse_part,
    part_chunks,
    part_name,
    read_checkpoint,
)
from bigtrain.engine.checkpoints.names import MANIFEST, folder_name
from bigtrain.engine.processes.identity import ProcessStamp
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import CheckpointError, RanksDriftedError
from tests.engine.checkpoint_cases import bits, is_state, leftovers, load_alone, record, save, save_alone, state
from tests.rank_pool import run_ranks


def load_and_compare(ranks, folder, images):
    return is_state(Checkpoints(folder, ranks).load_newest(), images)


@pytest.mark.two_process
@pytest.mark.parametrize(("writers", "readers"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2)])
def test_any_number_of_ranks_reads_what_any_number_wrote(tmp_path, writers, readers):
    folder = tmp_path / "run" / "checkpoints"
    assert run_ranks(writers, save, folder, 64) == [folder / "000000000064"] * writers
    names = sorted(path.name for path in (folder / "000000000064").iterdir())
    assert names == sorted([MANIFEST, RECORD, *(part_name(rank, writers) for rank in range(writers))])
    assert run_ranks(readers, load_and_compare, folder, 64) == [True] * readers
    assert leftovers(folder) == []


def test_no_checkpoint_is_a_fresh_start(tmp_path):
    assert load_alone(tmp_path / "never-made") is None
    (tmp_path / ".tmp-000000000064-host-1-1").mkdir()
    (tmp_path / "notes").mkdir()
    assert load_alone(tmp_path) is None


def test_parts_are_ordinary_safetensors_files(tmp_path):
    expected = state(1)
    (tmp_path / "ours.safetensors").write_bytes(b"".join(bytes(chunk) for chunk in part_chunks(expected)))
    theirs = load_file(tmp_path / "ours.safetensors")
    assert theirs.keys() == expected.keys()
    assert all(bits(theirs[name]) == bits(expected[name]) for name in expected)
    parsed = parse_part(bytearray((tmp_path / "ours.safetensors").read_bytes()))
    assert all(tensor.data_ptr() % tensor.element_size() == 0 for tensor in parsed.values()), "not aligned"
    contiguous = {name: tensor.detach().contiguous() for name, tensor in expected.items()}
    reference_save(contiguous, tmp_path / "theirs.safetensors")
    ours = parse_part(bytearray((tmp_path / "theirs.safetensors").read_bytes()))
    assert ours.keys() == expected.keys()
    assert all(bits(ours[name]) == bits(expected[name]) for name in expected)


def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_them_all(tmp_path, monkeypatch):
    write = disk.OPERATIONS["write"]
    monkeypatch.setitem(disk.OPERATIONS, "write", lambda file, piece: write(file, piece[:7]))
    save_alone(tmp_path, 1)
    assert is_state(load_alone(tmp_path), 1)


def test_loaded_tensors_can_be_written_to(tmp_path):
    save_alone(tmp_path, 1)
    tensors = load_alone(tmp_path).tensors
    tensors["generator/weight"].add_(1.0)
    assert bits(tensors["optimizer/moment"]) == bits(state(1)["optimizer/moment"])


def test_tensors_are_dealt_by_size_and_each_once():
    sizes = {"a": 100, "b": 60, "c": 50, "d": 10, "e": 10}
    tensors = {name: torch.zeros(size, dtype=torch.uint8) for name, size in sizes.items()}
    assert deal(tensors, 1) == [["a", "b", "c", "d", "e"]]
    # a to 0 (100), b to 1 (60), c to 1 (110), d to 0 (110), e to 0, the first of equals.
    assert deal(tensors, 2) == [["a", "d", "e"], ["b", "c"]]
    assert deal(dict(reversed(tensors.items())), 2) == deal(tensors, 2)
    assert deal({}, 2) == [[], []]


def test_saving_twice_keeps_the_first(tmp_path):
    save_alone(tmp_path, 64)
    before = {path: path.stat().st_ino for path in (tmp_path / "000000000064").iterdir()}
    save_alone(tmp_path, 64)
    assert {path: path.stat().st_ino for path in (tmp_path / "000000000064").iterdir()} == before


def test_saving_over_a_damaged_one_sets_it_aside(tmp_path):
    save_alone(tmp_path, 64)
    (tmp_path / "000000000064" / RECORD).write_text("{}")
    save_alone(tmp_path, 64)
    assert is_state(load_alone(tmp_path), 64)
    assert (tmp_path / ".bad-000000000064" / RECORD).read_text() == "{}"


def test_only_the_newest_are_kept(tmp_path):
    save_alone(tmp_path, 1, 2, 3, 4, 10, 11, keep_last=3)
    assert committed(tmp_path) == [11, 10, 4]


def test_pinned_ones_stay_besides_until_unpinned(tmp_path):
    save_alone(tmp_path, 1, 2)
    checkpoints = Checkpoints(tmp_path, Ranks.single())
    checkpoints.pin(1, "best fd_classifier")
    checkpoints.pin(1, "again")
    checkpoints.pin(99, "is not there")
    save_alone(tmp_path, 3, 4, 5)
    assert committed(tmp_path) == [5, 4, 1]
    assert checkpoints.pinned() == {1: "best fd_classifier"}
    assert is_state(read_checkpoint(tmp_path / folder_name(1)), 1)
    checkpoints.unpin(1)
    checkpoints.unpin(1)
    save_alone(tmp_path, 6)
    assert committed(tmp_path) == [6, 5]


def test_a_disk_that_refuses_a_pin_does_not_stop_the_run(tmp_path, monkeypatch, caplog):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    save_alone(tmp_path, 1)
    monkeypatch.setitem(disk.OPERATIONS, "open", full)
    Checkpoints(tmp_path, Ranks.single()).pin(1, "best")
    assert "could not be pinned (best): [Errno 28] No space left on device" in caplog.text


def test_what_was_just_saved_is_never_pruned(tmp_path):
    """A run that went back to an older state saves under a smaller number than others have."""
    save_alone(tmp_path, 10, 20)
    save_alone(tmp_path, 5)
    assert committed(tmp_path) == [20, 10, 5]


def test_one_that_is_cut_short_does_not_count_as_kept(tmp_path):
    save_alone(tmp_path, 1, 2, 3)
    os.truncate(tmp_path / folder_name(3) / part_name(0, 1), 100)
    save_alone(tmp_path, 4)
    assert committed(tmp_path) == [4, 2]
    assert (tmp_path / ".bad-000000000003").is_dir()


def test_keeping_fewer_than_two_is_refused(tmp_path):
    with pytest.raises(AssertionError, match="keep_last is 1"):
        Checkpoints(tmp_path, Ranks.single(), keep_last=1)


def test_leftovers_go_at_the_next_save_except_those_of_live_processes_here(tmp_path):
    own, parent = ProcessStamp.own(), ProcessStamp.of(os.getppid())
    kept = f".tmp-000000000007-{parent.host}-{parent.pid}-{parent.start_ticks}"
    gone = [
        f".tmp-000000000006-{own.host}-{own.pid}-{own.start_ticks}",  # of this process, which writes one at a time
        f".tmp-000000000007-{own.host}-{own.pid}-{own.start_ticks}",
        f".tmp-000000000007-{parent.host}-{parent.pid}-1",  # of another process that had the number of one alive
        ".tmp-000000000007-node-7.cluster-1-1-pruned",  # of another host: the run's lock says that nobody is left there
        ".tmp-of nobody",
    ]
    for name in [kept, *gone]:
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "file").touch()
        (tmp_path / name / "link").symlink_to(tmp_path)
    (tmp_path / ".tmp-file").touch()
    (tmp_path / ".tmp-link").symlink_to(tmp_path / kept)
    save_alone(tmp_path, 7)
    assert leftovers(tmp_path) == [kept]
    assert (tmp_path / kept / "deep" / "file").exists()
    assert is_state(load_alone(tmp_path), 7)


def save_with_other_tensors(ranks, folder):
    tensors = state(1)
    if ranks.rank == 1:
        tensors["game/count"] = tensors["game/count"].float()
    try:
        Checkpoints(folder, ranks).save(1, tensors, record(1))
    except RanksDriftedError as error:
        return str(error), error.exit_status


@pytest.mark.two_process
def test_ranks_that_hold_other_tensors_do_not_save(tmp_path):
    for sentence, exit_status in run_ranks(2, save_with_other_tensors, tmp_path):
        assert "rank 1 holds other tensors than rank 0" in sentence
        assert exit_status == 8
    assert committed(tmp_path) == []


def test_a_dtype_that_no_reader_knows_is_refused_before_writing(tmp_path):
    with pytest.raises(AssertionError, match="complex64"):
        Checkpoints(tmp_path, Ranks.single()).save(1, {"a": torch.zeros(2, dtype=torch.complex64)}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_format_of_the_future_is_refused_by_name_and_left_alone(tmp_path):
    save_alone(tmp_path, 1, 2)
    manifest = tmp_path / folder_name(2) / MANIFEST
    body = json.loads(manifest.read_bytes())
    del body["checksum"]
    manifest.write_bytes(_render(body | {"format": FORMAT + 1}))
    with pytest.raises(
        CheckpointError, match=f"format {FORMAT + 1}, and this version of bigtrain reads format {FORMAT}"
    ):
        load_alone(tmp_path)
    assert committed(tmp_path) == [2, 1]
    save_alone(tmp_path, 3)
    assert committed(tmp_path) == [3, 2, 1], "neither counted nor removed"


def test_a_manifest_reads_back_and_its_bytes_are_fixed():
    facts = FileFacts(3, "ab")
    text = Manifest(7, {RECORD: facts}).render()
    assert text == Manifest(7, {RECORD: facts}).render()
    assert json.loads(text)["format"] == 1
    assert text.endswith(b"}\n")


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "part-1.pickle"])
def test_a_manifest_cannot_name_files_elsewhere(tmp_path, name):
    save_alone(tmp_path, 1)
    path = tmp_path / folder_name(1)
    files = {RECORD: FileFacts(1, ""), name: FileFacts(1, "")}
    (path / MANIFEST).write_bytes(Manifest(1, files).render())
    with pytest.raises(DamagedCheckpointError, match="lists other files"):
        read_checkpoint(path)


def test_verbs_read_without_touching(tmp_path):
    assert newest_complete(tmp_path / "none") is None
    save_alone(tmp_path, 1, 2)
    (tmp_path / folder_name(2) / RECORD).unlink()
    assert newest_complete(tmp_path) == tmp_path / folder_name(1)
    assert committed(tmp_path) == [2, 1]
    with pytest.raises(DamagedCheckpointError, match=r"record.json is missing"):
        read_checkpoint(tmp_path / folder_name(2))
    with pytest.raises(CheckpointError, match="is no checkpoint folder; name one such as"):
        read_checkpoint(tmp_path / "nothing")


def save_big(ranks, folder):
    tensors = {f"tensor-{number}": torch.full((1 << 20,), float(number)) for number in range(12)}
    started_s = time.monotonic()
    Checkpoints(folder, ranks).save(1, tensors, {})
    return time.monotonic() - started_s


@pytest.mark.two_process
def test_ranks_share_the_writing(tmp_path):
    run_ranks(2, save_big, tmp_path)
    sizes = [(tmp_path / folder_name(1) / part_name(rank, 2)).stat().st_size for rank in range(2)]
    assert sizes[0] == pytest.approx(6 * 4 * 2**20, rel=1e-3)
    assert sizes[1] == pytest.approx(6 * 4 * 2**20, rel=1e-3)
