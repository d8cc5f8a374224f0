"""The tables of docs/recipes.md are current, and every key of a recipe is in them with a meaning."""

import importlib.util
from pathlib import Path

import pytest
from pydantic import Field

from bigtrain.recipe.schedule import Schedule
from bigtrain.recipe.settings import PositiveCount, Settings, Share

CHECKOUT = Path(__file__).parent.parent


class Part(Settings):
    """What a part is,
    on two lines.

    More of it.
    """

    side: PositiveCount = Field(default=64_000, ge=4, le=10**9)
    """Pixels; None is nothing."""
    share: Share
    rate: Schedule | None = None


class Whole(Settings):
    """The whole."""

    parts: tuple[Part, ...] = ()
    named: dict[str, Part]
    sides: tuple[int, ...] = (8, 16)
    is_on: bool = True


@pytest.fixture(scope="module")
def tool():
    """tools/make_recipe_docs.py as a module."""
    spec = importlib.util.spec_from_file_location("make_recipe_docs", CHECKOUT / "tools" / "make_recipe_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_checked_in_tables_are_current(tool):
    text = (CHECKOUT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert text == tool.document_text(text), "docs/recipes.md is not current; run `python tools/make_recipe_docs.py`"


def test_every_key_has_a_meaning(tool):
    silent = [
        f"{section.path}.{name}"
        for section in tool.sections()
        for name, field in section.model.model_fields.items()
        if name != "kind" and not tool.meaning(field)
    ]
    assert silent == []


def test_settings_inside_lists_and_mappings_are_found_once_at_their_place(tool):
    assert [section.path for section in tool.sections(Whole)] == ["", "parts.N", "named.PLAYER"]


def test_a_row_says_what_may_be_written_and_what_holds_without_it(tool):
    rows = {name: tool.row(name, field) for name, field in {**Part.model_fields, **Whole.model_fields}.items()}
    assert rows["side"] == "| `side` | count ≥ 4, ≤ 1000000000 | `64k` | Pixels; `null` is nothing. |"
    assert rows["share"] == "| `share` | share ≥ 0, ≤ 1 | required |  |"
    assert rows["rate"] == "| `rate` | schedule or `null` | `null` |  |"
    assert rows["parts"] == "| `parts` | list; keys of each below | `[]` | What a part is, on two lines. |"
    assert rows["named"] == "| `named` | by name; keys of each below | required | What a part is, on two lines. |"
    assert rows["sides"] == "| `sides` | list; each: whole number | `[8, 16]` |  |"
    assert rows["is_on"] == "| `is_on` | true or false | `true` |  |"


def test_only_what_stands_between_the_marks_is_written(tool):
    text = tool.document_text(f"before\n{tool.FIRST}\nold\n{tool.LAST}\nafter\n")
    assert text.startswith(f"before\n{tool.FIRST}\n\n### Top level")
    assert text.endswith(f"{tool.LAST}\nafter\n")
    assert "old" not in text.splitlines()


def test_a_document_without_its_marks_is_refused(tool):
    with pytest.raises(ValueError, match="does not hold each of these lines once"):
        tool.document_text("no marks")
