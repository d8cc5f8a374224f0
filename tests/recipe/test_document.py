"""What the reader of recipes takes, refuses and remembers."""

import pytest
import yaml

from bigtrain.recipe.document import Place, RecipeDumper, leaves, read_document
from bigtrain.recipe.errors import RecipeError


def read(text):
    return read_document(text, "r.yaml")


def problems(text):
    return [str(problem) for problem in read(text).problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("2E+3", 2000.0),
        (".5", 0.5),
        ("1_000", 1000),
        ("-3", -3),
        ("0", 0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("64k", "64k"),
        ("007", "007"),
        ("0x1F", "0x1F"),
        ("2024-01-31", "2024-01-31"),
        ("'no'", "no"),
        ('"1:30"', "1:30"),
        ("y", "y"),
        ("!!str 12", "12"),
        ("!!float 3", 3),
        ("[1, 2.5, a]", [1, 2.5, "a"]),
    ],
)
def test_plain_values_are_what_their_writer_meant(text, value):
    document = read(f"key: {text}")
    assert document.tree == {"key": value}
    assert type(document.tree["key"]) is type(value)
    assert document.problems == []


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "Yes", "NO", "Off"])
def test_words_that_are_booleans_to_some_readers_are_refused(word):
    assert problems(f"mirror: {word}") == [
        f"r.yaml:1: mirror: `{word}` is a boolean to some YAML readers and text to others; "
        "write true or false, or quote it"
    ]


def test_precision_no_means_fp32():
    assert read("precision: no").tree == {"precision": "fp32"}
    assert problems("precision: no") == []
    assert len(problems("precision: yes")) == 1
    assert len(problems("mirror: no")) == 1


def test_base_60_numbers_are_refused():
    assert problems("a: 1\nevery: 1:30") == [
        "r.yaml:2: every: `1:30` is a number in base 60 to some YAML readers; write a duration such as 90s, or quote it"
    ]


def test_a_key_written_twice_is_refused_with_both_lines():
    assert problems("seed: 1\nname: a\nseed: 2") == [
        "r.yaml:3: seed: written twice (first in r.yaml:1); keep one of them"
    ]


@pytest.mark.parametrize(
    "value", ["!!python/object/apply:os.system [ls]", "!custom {a: 1}", "!!binary aGk=", "!!set {a}"]
)
def test_tags_that_build_objects_are_refused_and_build_nothing(value):
    [problem] = problems(f"key: {value}")
    assert problem.startswith("r.yaml:1: key: the tag !")
    assert "is not allowed; write plain values" in problem


def test_a_tag_that_its_text_does_not_keep_is_refused():
    assert problems("key: !!int abc") == ["r.yaml:1: key: `abc` is not what the tag !!int says; leave the tag away"]
    assert len(problems("key: !!bool no")) == 1


def test_merge_keys_are_refused_and_aliases_are_read():
    text = "adam: &adam {lr: 1e-4}\nother: *adam\nthird: {<<: *adam}"
    document = read(text)
    assert document.tree["other"] == {"lr": 1e-4}
    assert [problem.key for problem in document.problems] == [("third", "<<")]


def test_an_alias_that_holds_itself_stops_at_once():
    with pytest.raises(RecipeError, match="an alias holds itself"):
        read("a: &a [1, *a]")


def test_aliases_that_multiply_stop_at_once():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(RecipeError, match="aliases expand to over 100000 values"):
        read("\n".join(lines))


def test_a_list_or_mapping_cannot_be_a_key():
    assert problems("? [1, 2]\n: 3") == ["r.yaml:1: a list cannot be a key; write a name"]


def test_keys_stay_text():
    assert read("{1: a, on: b, null: c}").tree == {"1": "a", "on": "b", "null": "c"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1, 2\nb: 3", r"r.yaml:2: not YAML: .*; check indentation, colons and quotes"),
        ("a: 1\n\tb: 2", r"r.yaml:2: not YAML: "),
        ("a: 1\n--- \nb: 2", r"r.yaml:2: not YAML: "),
        ("a: \x00", r"r.yaml: not YAML: .*save it as plain UTF-8 text"),
        ("", r"r.yaml: the file is empty"),
        ("# only a comment", r"r.yaml: the file is empty"),
        ("- a\n- b", r"r.yaml: a recipe is a mapping, but this holds a list"),
        ("just text", r"r.yaml: a recipe is a mapping, but this holds a single value"),
        ("[" * 5000, r"r.yaml: not YAML: "),
    ],
)
def test_what_is_not_a_recipe_is_one_sentence(text, words):
    with pytest.raises(RecipeError, match=words) as caught:
        read(text)
    assert len(caught.value.problems) == 1


def test_every_key_and_entry_knows_its_line():
    document = read("a: 1\nb:\n  c: 2\n  d:\n    - 3\n    - e: 4\n")
    assert document.places[("b", "c")] == Place("r.yaml", 3)
    assert document.places[("b", "d", 1)] == Place("r.yaml", 6)
    assert document.place(("b", "d", 1, "missing", "deep")) == Place("r.yaml", 6)


def test_leaves_are_all_scalars_with_their_paths():
    assert list(leaves({"a": {"b": [1, {"c": 2}]}, "d": None})) == [
        (("a", "b", 0), 1),
        (("a", "b", 1, "c"), 2),
        (("d",), None),
    ]


@pytest.mark.parametrize(
    "text", ["no", "1:30", "1e-4", "007", "true", "null", "", "64k", "a: b", "2024-01-31", "0x1F", "="]
)
def test_text_is_written_so_that_it_is_read_as_the_same_text(text):
    written = yaml.dump({"key": text}, Dumper=RecipeDumper)
    document = read(written)
    assert document.tree == {"key": text}
    assert document.problems == []
