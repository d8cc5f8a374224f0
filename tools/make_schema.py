"""Writes recipes/schema.json, by which editors complete and check recipes: `python tools/make_schema.py [--check]`.

The schema describes what a recipe file may hold. Files that extend another may leave out what that one says, so a key
is required only at the top of a file without `extends`; the rest is checked when the recipe is loaded.
"""

import json
import sys
from pathlib import Path
from typing import Any

from bigtrain.recipe.errors import EXIT_DONE
from bigtrain.training.schema import Recipe

TARGET = Path(__file__).resolve().parent.parent / "recipes" / "schema.json"
EXTENDS = {
    "type": "string",
    "description": "Recipe that this one is laid over: bigtrain:NAME, or a path beside this file.",
}
BY_NAME = ("properties", "$defs")  # below these stand names, not rules


def schema_text() -> str:
    """Return the JSON Schema of a recipe file, as it is checked in."""
    schema = _loosened(Recipe.model_json_schema(mode="validation"))
    required = Recipe.model_json_schema(mode="validation").get("required", [])
    schema["properties"] = {"extends": EXTENDS, **schema["properties"]}
    schema["if"] = {"not": {"required": ["extends"]}}
    schema["then"] = {"required": required}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "bigtrain recipe"}
    return json.dumps({**head, **{key: value for key, value in schema.items() if key != "title"}}, indent=2) + "\n"


def _loosened(schema: Any) -> Any:
    """Drop `required`, and turn `oneOf` into `anyOf`: without a `kind`, several variants may fit a fragment."""
    if isinstance(schema, list):
        return [_loosened(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    loose: dict[str, Any] = {}
    for key, value in schema.items():
        if key in BY_NAME:
            loose[key] = {name: _loosened(part) for name, part in value.items()}
        elif key == "description":
            loose[key] = " ".join(value.split())  # however the docstring is wrapped
        elif key not in ("required", "discriminator"):
            loose["anyOf" if key == "oneOf" else key] = _loosened(value)
    return loose


def main() -> int:
    """Write the schema, or with --check only tell whether the checked-in one is current."""
    text = schema_text()
    current = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text
    if "--check" in sys.argv[1:]:
        print(f"{TARGET} is {'current' if current else 'not current; run `python tools/make_schema.py`'}")
        return EXIT_DONE if current else 1
    if not current:
        TARGET.write_text(text, encoding="utf-8")
    print(f"{TARGET} is {'current' if current else 'written'}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
