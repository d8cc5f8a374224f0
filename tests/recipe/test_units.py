"""Suffixes of counts, durations and shares."""

import pytest

from bigtrain.recipe.units import format_count, parse_count, parse_duration_s, parse_share


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("64", 64),
        ("64k", 64_000),
        ("25M", 25_000_000),
        ("1G", 10**9),
        ("1.5k", 1_500),
        ("1_000", 1_000),
        (" 2 k ", 2_000),
    ],
)
def test_counts_take_decimal_suffixes(text, count):
    assert parse_count(text) == count
    assert type(parse_count(text)) is int


@pytest.mark.parametrize("text", ["", "k", "64K", "1.5", "0.0001k", "-3", "64 kilo", "1e3", "64%", "1k1"])
def test_what_is_no_whole_count_is_refused(text):
    with pytest.raises(ValueError, match="not a whole count; write a number with an optional decimal suffix"):
        parse_count(text)


@pytest.mark.parametrize(
    ("text", "count"), [("0.29k", 290), ("1.1k", 1_100), ("4.35k", 4_350), ("1.001M", 1_001_000), ("16.9M", 16_900_000)]
)
def test_decimal_fractions_are_exact(text, count):
    assert parse_count(text) == count


def test_large_counts_keep_every_digit():
    assert parse_count("12345678901234567") == 12345678901234567


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("10min", 600), ("2h", 7200), ("1d", 86400), ("1.5h", 5400)]
)
def test_durations_take_units(text, seconds):
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "10m", "ten min", "10", "-1s", "1 week"])
def test_durations_need_a_known_unit(text):
    with pytest.raises(ValueError, match="not a duration; write a number with a unit s, min, h or d"):
        parse_duration_s(text)


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("100%", 1.0), ("0", 0.0)])
def test_shares_take_percentages(text, share):
    assert parse_share(text) == pytest.approx(share, abs=0)


@pytest.mark.parametrize("text", ["5k", "%", "half", ""])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(ValueError, match="not a share"):
        parse_share(text)


@pytest.mark.parametrize("read", [parse_count, parse_duration_s, parse_share])
@pytest.mark.parametrize("value", [3, 2.5, None, [1], True])
def test_what_is_not_text_passes_through(read, value):
    assert read(value) is value


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999"), (64_000, "64k"), (25_000_000, "25M"), (1_500, "1.5k"), (10**9, "1G"), (0, "0")]
)
def test_counts_are_written_with_the_largest_suffix(count, text):
    assert format_count(count) == text
