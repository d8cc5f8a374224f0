"""The JSON Schema by which editors complete recipes is current, and says what the loader says."""

import importlib.util
import json
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tool():
    """tools/make_schema.py as a module."""
    spec = importlib.util.spec_from_file_location("make_schema", CHECKOUT / "tools" / "make_schema.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_checked_in_schema_is_current(tool):
    text = (CHECKOUT / "recipes" / "schema.json").read_text(encoding="utf-8")
    assert text == tool.schema_text(), "recipes/schema.json is not current; run `python tools/make_schema.py`"


def test_a_recipe_that_extends_another_may_leave_keys_out(tool):
    schema = json.loads(tool.schema_text())
    assert "extends" in schema["properties"]
    assert "required" not in schema
    assert schema["if"] == {"not": {"required": ["extends"]}}
    assert {"name", "total_images", "batch_images", "game", "data"} <= set(schema["then"]["required"])
    assert all("required" not in part for part in schema["$defs"].values())


def test_unknown_keys_are_marked_and_known_ones_explained(tool):
    schema = json.loads(tool.schema_text())
    assert schema["additionalProperties"] is False
    assert all(part["additionalProperties"] is False for part in schema["$defs"].values() if "properties" in part)
    assert schema["properties"]["batch_images"]["description"]


def test_loosening_touches_rules_and_never_a_field_of_the_same_name(tool):
    schema = {
        "properties": {"required": {"type": "string"}, "oneOf": {"oneOf": [{"required": ["a"], "type": "object"}]}},
        "required": ["required"],
    }
    assert tool._loosened(schema) == {
        "properties": {"required": {"type": "string"}, "oneOf": {"anyOf": [{"type": "object"}]}}
    }
