"""Damaged and hostile shards as streams: whole samples before the damage, a sentence or a line for it, no mixing."""

import gzip
import io
import multiprocessing
import os
import re
import tarfile
from pathlib import Path

import pytest

from bigtrain.data.pixels import encode
from bigtrain.data.stream.bytes import ByteStream
from bigtrain.data.stream.samples import SampleRules
from bigtrain.data.stream.shards import BUFFER_BYTES, NO_STAND_IN, Share
from bigtrain.data.stream.tars import MOST_EXTENSION_BYTES, TarFaultError, stream_members
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.image import ImageSpec
from tests.shard_factory import number_in, numbered_image
from tests.stream_tars import (
    SPEC,
    expected,
    headers_of,
    opened,
    picture,
    read_all,
    sample,
    samples,
    split,
    tar_of,
)

TEN = tar_of(samples(range(10)))
AT = headers_of(TEN)
MIB = 1 << 20


def cut(at):
    return TEN[:at]


def flip(at):
    return TEN[:at] + bytes([TEN[at] ^ 4]) + TEN[at + 1 :]


def hole(at):
    return TEN[:at] + bytes(512) + TEN[at + 512 :]


DAMAGED = {
    "cut inside the image of sample 5": (cut(AT["0005.png"] + 530), 5, ": ends after .* without an end marker"),
    "cut between the image of 5 and its label": (cut(AT["0005.cls"]), 5, "0005: ends after .* without an end marker"),
    "cut inside the header of that label": (cut(AT["0005.cls"] + 100), 5, "0005: ends after"),
    "cut between two samples": (cut(AT["0006.png"]), 6, "^: ends after"),
    "cut before the end marker": (cut(AT["0009.cls"] + 1024), 10, "^: ends after"),
    "a bit of an image's header": (flip(AT["0005.png"] + 3), 5, "^: has a damaged header at byte .* .bad checksum"),
    "a bit of a label's header": (flip(AT["0005.cls"] + 130), 5, "0005: has a damaged header"),
    "a hole where a header was": (hole(AT["0005.png"]), 5, "^: goes on after an end marker"),
    "two tars joined": (TEN + TEN, 10, "^: goes on after an end marker"),
    "no tar": (b"<html>sorry</html>" * 99, 0, "^: has a damaged header at byte 0"),
    "short and no tar": (b"sorry", 0, "^: ends after 5 bytes"),
    "empty": (b"", 0, "^: is empty"),
    "zeros": (bytes(20480), 0, "^: holds no image"),
    "no image": (tar_of([("a.txt", b"x"), ("a.cls", b"1")]), 0, "^: holds no image"),
    "gzip, cut": (gzip.compress(TEN)[:-300], 0, "without an end marker"),
    "gzip, damaged at its end": (gzip.compress(TEN)[:-5] + b"\0\0\0\0\0", 0, "is damaged within its gzip data"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_shard_gives_the_whole_samples_before_the_damage_and_one_fault(name):
    data, num_whole, words = DAMAGED[name]
    whole, faults = split(read_all(data))
    assert len(faults) == 1
    assert re.search(words, faults[0]), faults[0]
    assert whole == expected(range(len(whole)))
    assert len(whole) == num_whole or "gzip" in name


def test_wherever_a_shard_is_cut_its_whole_samples_come_and_the_cut_is_told():
    last = AT["0009.cls"] + 1024
    for at in range(0, last + 512, 83):
        whole, faults = split(read_all(cut(at)))
        assert whole == expected(range(len(whole)))
        assert sum(AT[f"{number:04d}.cls"] + 1024 <= at for number in range(10)) == len(whole)
        assert len(faults) == 1
    assert split(read_all(cut(last + 512))) == (expected(range(10)), [])


def test_any_flipped_bit_outside_of_what_is_stored_is_told_and_hurts_no_other_sample():
    """Bits of an image or a label in a tar have no checksum; of names, sizes and kinds there is one."""
    for at in range(0, AT["0009.cls"] + 512, 41):
        header = max(offset for offset in AT.values() if offset <= at)
        whole, faults = split(read_all(flip(at)))
        if at < header + 512:
            assert len(faults) == 1
            assert whole == expected(range(len(whole)))
        else:
            assert sum(one != other for one, other in zip(whole, expected(range(10)), strict=False)) <= 1


def one_bad(bad, number=5):
    """Ten samples, of which one is made of other files."""
    files = [file for n in range(10) for file in (bad if n == number else sample(n))]
    return tar_of(files)


PNG = ("0005.png", picture(5))
BAD_SAMPLES = {
    "no label": ([PNG], "has no .cls beside it"),
    "a label elsewhere": ([PNG, ("0055.cls", b"1")], "has no .cls beside it"),
    "a label too large": ([PNG, ("0005.cls", b"3")], "its label is 3, but there are 3 classes"),
    "a label under 0": ([PNG, ("0005.cls", b"-1")], "its label is -1, but labels run from 0"),
    "a name": ([PNG, ("0005.cls", b"cat")], "its label is 'cat'; a stream knows numbers only"),
    "no text": ([PNG, ("0005.cls", b"\xff\xfe")], "its label is no text"),
    "an empty label": ([PNG, ("0005.cls", b"")], "its label is ''"),
    "an endless label": ([PNG, ("0005.cls", bytes(2 << 20))], "its label"),
    "two labels": ([PNG, ("0005.cls", b"1"), ("0005.cls", b"1")], "has 2 .cls beside it"),
    "two images": ([PNG, ("0005.jpg", b"x"), ("0005.cls", b"1")], "has 2 images"),
    "an empty image": ([("0005.png", b""), ("0005.cls", b"1")], "the image has 0 bytes"),
    "an image of 20 MB": ([("0005.png", bytes(20_000_000)), ("0005.cls", b"1")], "the image has 20000000 bytes"),
    "another size": ([("0005.png", picture(5, 8)), ("0005.cls", b"1")], "the image is 8x8, not 4x4"),
    "no image": ([("0005.png", b"<html>"), ("0005.cls", b"1")], "the image is no JPEG, PNG or WebP"),
    "half an image": ([("0005.png", picture(5)[:45]), ("0005.cls", b"1")], "the image cannot be decoded"),
    "RGB": ([("0005.png", encode(numbered_image(5, 4, 3), "png")), ("0005.cls", b"1")], "has 3 channels"),
}


@pytest.mark.parametrize(("files", "words"), BAD_SAMPLES.values(), ids=BAD_SAMPLES)
def test_a_bad_sample_stops_or_is_listed_and_its_neighbours_are_given(tmp_path, files, words):
    (tmp_path / "a.tar").write_bytes(one_bad(files))
    batch = opened(tmp_path, on_error="skip").opened(0, Share(0, 1)).load(9)
    assert [number_in(image_CHW) for image_CHW in batch.image_NCHW] == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    (bad,) = batch.bad
    assert (bad.shard, bad.key, bad.number, bad.stand_in) == ("a.tar", "0005", 5, NO_STAND_IN)
    assert words in bad.reason
    with pytest.raises(DataError) as stop:
        opened(tmp_path).opened(0, Share(0, 1)).load(9)
    assert str(stop.value).startswith(f"shard a.tar, sample '0005' in {tmp_path}: {bad.reason}; mend it at its source")


def test_a_cut_shard_is_listed_with_what_it_gave_kept(tmp_path):
    (tmp_path / "a.tar").write_bytes(cut(AT["0005.cls"]))
    batch = opened(tmp_path, on_error="skip").opened(0, Share(0, 1)).load(8)
    assert [number_in(image_CHW) for image_CHW in batch.image_NCHW] == [0, 1, 2, 3, 4, 0, 1, 2]
    (bad,) = batch.bad
    assert (bad.shard, bad.key, bad.number) == ("a.tar", "0005", 5)
    with pytest.raises(DataError, match=r"shard a.tar, sample '0005' in .*: ends after .* take|pass over it"):
        opened(tmp_path).opened(0, Share(0, 1)).load(8)


def test_members_of_two_shards_are_never_one_sample(tmp_path):
    """In webdataset, where a shard ends in damage and the next one begins with the same key, they are."""
    (tmp_path / "b.tar").write_bytes(tar_of([("x.png", picture(7)), *sample(1)]))
    whole_a = tar_of([*sample(0), ("x.cls", b"2")])
    (tmp_path / "a.tar").write_bytes(whole_a[: headers_of(whole_a)["x.cls"] + 1024])
    batch = opened(tmp_path, on_error="skip").opened(0, Share(0, 1)).load(100)
    assert {number_in(image_CHW) for image_CHW in batch.image_NCHW} == {0, 1}
    assert {(bad.shard, bad.key) for bad in batch.bad} == {("a.tar", "x"), ("b.tar", "x")}


def test_shards_of_which_hardly_anything_is_whole_end_the_wait(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"")
    (tmp_path / "b.tar").write_bytes(bytes(10240))
    how = {"on_error": "skip", "max_bad_fraction": 0.002}
    with pytest.raises(DataError, match="^21 of what a process read in a row was bad, the last: shard [ab].tar in"):
        opened(tmp_path, **how).opened(0, Share(0, 1)).load(1)


@pytest.mark.parametrize("shuffle_samples", [1, 2000])
def test_buffers_that_fill_do_not_make_the_share_of_what_is_bad_larger(tmp_path, shuffle_samples):
    files = [file for n in range(100) for file in (sample(n)[:1] if n % 20 == 0 else sample(n))]  # 5 of 100
    (tmp_path / "a.tar").write_bytes(tar_of(files))
    shards = opened(tmp_path, on_error="skip", shuffle_samples=shuffle_samples)
    stream = shards.opened(0, Share(0, 1))
    counts = [len(stream.load(190).bad) for _ in range(5)]
    assert 25 <= sum(counts) <= 75  # 50 of 1000
    assert max(counts) <= 30
    with pytest.raises(DataError, match="has no .cls beside it"):  # at once where it stops the run
        opened(tmp_path, shuffle_samples=1_000_000_000).opened(0, Share(0, 1)).load(1)


# Attacks.


def entry(name, kind=tarfile.REGTYPE, target="", **pax):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers = kind, target, pax
    return info, b""


def claiming(name, size):
    """A header that claims a size, with nothing behind it."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def extension_of(size):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    return info.tobuf(tarfile.GNU_FORMAT)


def pax_header(size):
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, size
    return info.tobuf(tarfile.USTAR_FORMAT)


def pax_of(text):
    return pax_header(len(text)) + text.ljust(512, b"\0") + tar_of(sample(9))


ATTACKS = {
    "code": (tar_of([*sample(0), ("1.pkl", b"x")]), "member '1.pkl', which can run code"),
    "code in capitals": (tar_of([*sample(0), ("1.PyD", b"x")]), "which can run code"),
    "code with another ending": (tar_of([*sample(0), ("1.pickle.png", b"x")]), "which can run code"),
    "a way out": (tar_of([*sample(0), ("../1.png", b"x")]), "whose name leaves the folder"),
    "a way out within": (tar_of([*sample(0), ("a/../../1.png", b"x")]), "whose name leaves the folder"),
    "an absolute name": (tar_of([*sample(0), ("/tmp/1.png", b"x")]), "whose name leaves the folder"),
    "a long way out": (tar_of([*sample(0), ("a" * 200 + "/../../../1.png", b"x")]), "whose name leaves the folder"),
    "a link": (tar_of([*sample(0), entry("1.png", tarfile.SYMTYPE, "/etc/passwd")]), "which is no regular file"),
    "a hard link": (tar_of([*sample(0), entry("1.png", tarfile.LNKTYPE, "0.png")]), "which is no regular file"),
    "a device": (tar_of([*sample(0), entry("1.png", tarfile.CHRTYPE)]), "which is no regular file"),
    "a pipe": (tar_of([*sample(0), entry("1.png", tarfile.FIFOTYPE)]), "which is no regular file"),
    "a sparse file": (tar_of([*sample(0), entry("1.png", tarfile.GNUTYPE_SPARSE)]), "which is sparse"),
    "a sparse file in pax": (tar_of([*sample(0), entry("1.png", **{"GNU.sparse.major": "1"})]), "which is sparse"),
    "half a terabyte": (cut(AT["0001.png"]) + claiming("1.png", 1 << 39), "claims 549755813888 bytes"),
    "a size under 0": (cut(AT["0001.png"]) + pax_of(b"13 size=-100\n"), "a size under 0"),
    "an endless name": (cut(AT["0001.png"]) + extension_of(1 << 33), "more than a name needs"),
    "pax without a length": (cut(AT["0001.png"]) + pax_of(b"-5 x\n"), "damaged header"),
    "pax that goes nowhere": (cut(AT["0001.png"]) + pax_of(b"0 x=y\n"), "damaged header"),
}


@pytest.mark.parametrize(("data", "words"), ATTACKS.values(), ids=ATTACKS)
def test_a_hostile_tar_is_refused_by_name_and_what_came_before_is_given(data, words):
    whole, (fault,) = split(read_all(data))
    assert whole == expected([0])
    assert words in fault


@pytest.mark.parametrize("name", ["GOPEN_REWRITE", "WDS_CACHE", "WDS_X"])
def test_no_variable_changes_what_is_opened(tmp_path, monkeypatch, name):
    canary = tmp_path / "canary"
    monkeypatch.setenv(name, f"{tmp_path}=pipe:touch {canary};{tmp_path}")
    folder = tmp_path / "$WDS_X"
    folder.mkdir()
    (folder / "a.tar").write_bytes(TEN)
    assert len(opened(folder).opened(0, Share(0, 1)).load(10)) == 10
    assert not canary.exists()


def grown_mib(work):
    """Return by how many MiB a process grows that does the work, at its peak."""
    ours, theirs = multiprocessing.Pipe()

    def measure():
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
        before = resident("VmRSS")
        work()
        theirs.send((resident("VmHWM") - before) / 1024)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=measure)
    process.start()
    theirs.close()
    grown = ours.recv()
    process.join()
    return grown


def resident(name):
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def squeezed(parts):
    """Gzip parts that are never all in memory; many megabytes of zeros become few."""
    held = io.BytesIO()
    with gzip.GzipFile(fileobj=held, mode="wb", compresslevel=1) as stream:
        for part in parts:
            stream.write(part)
    return held.getvalue()


def large_member(name, mib):
    yield claiming(name, mib * MIB)
    for _ in range(mib):
        yield bytes(MIB)


BOMBS = {
    "a caption": [*large_member("a.txt", 150)],
    "an image": [*large_member("a.png", 150)],
    "a label": [*large_member("a.cls", 150)],
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_inflates_to_much_takes_no_memory(name):
    data = squeezed([*BOMBS[name], TEN])
    assert len(data) < MIB
    assert grown_mib(lambda: read_all(data)) < 30
    assert split(read_all(data))[0] == expected(range(10))


def test_many_members_take_no_memory():
    header = claiming("x.txt", 0)
    data = squeezed([header * 1000] * 20 + [TEN])
    assert grown_mib(lambda: read_all(data)) < 8  # tarfile would hold 20,000 records of over 1 kB
    assert split(read_all(data))[0] == expected(range(10))


def test_headers_that_only_extend_a_member_take_no_memory():
    text = [f"{MOST_EXTENSION_BYTES} {number}=".encode() for number in range(1000)]
    records = (each.ljust(MOST_EXTENSION_BYTES - 1, b"x") + b"\n" for each in text)
    data = squeezed(pax_header(MOST_EXTENSION_BYTES) + record for record in records)
    assert len(data) < MIB
    assert grown_mib(lambda: read_all(data)) < 30  # 64 MB of records
    assert split(read_all(data + gzip.compress(TEN)))[1][0].endswith("(over 16 extensions before one member)")


def test_one_worker_holds_at_most_its_buffer(tmp_path):
    spec = ImageSpec(4, 1, 0)
    large = picture(0) + bytes(8 * MIB)
    (tmp_path / "a.tar").write_bytes(tar_of([(f"{number}.png", large) for number in range(4)]))
    shards = opened(tmp_path, spec, shuffle_samples=1000)
    grown = grown_mib(lambda: shards.opened(0, Share(0, 1)).load(100))
    assert 0.8 * BUFFER_BYTES / MIB < grown < BUFFER_BYTES / MIB + 60


def test_a_header_is_read_in_bounds():
    rules = SampleRules(SPEC, "cls")
    data = extension_of(MOST_EXTENSION_BYTES) + bytes(MOST_EXTENSION_BYTES) + TEN
    assert len(list(stream_members(ByteStream([data]), rules.most_bytes))) == 20
    with pytest.raises(TarFaultError, match="more than a name needs"):
        list(stream_members(ByteStream([extension_of(MOST_EXTENSION_BYTES + 1) + TEN]), rules.most_bytes))
