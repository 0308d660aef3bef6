"""The schema of family files: made from the rules, and passed by every file that ships."""

import json

import pytest

from flagscope.arch.rules import sources
from flagscope.schema import FAMILY_SCHEMA_FILE, family_schema

SCHEMA = family_schema()


def test_the_published_schema_is_that_of_the_rules():
    published = json.loads(FAMILY_SCHEMA_FILE.read_text(encoding="utf-8"))
    assert published == SCHEMA, "run `python -m flagscope.schema --write`"


@pytest.fixture(scope="module")
def check():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    return jsonschema.Draft7Validator(SCHEMA)


def test_every_shipped_file_passes(check):
    assert len(sources._shipped()) >= 64
    for name, content in sources._shipped().items():
        assert not list(check.iter_errors(content)), name


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("titel", "X"),
        ("title", 3),
        ("sizes", {"h": 3}),
        ("(file)", "x.toml"),
        ("stacks", [{"name": "encoder", "path": "layer.{layer}.", "parallel": "yes"}]),
        ("stacks", [{"name": "encoder", "path": "layer.{layer}.", "mlp": [{"up": {}}]}]),
    ],
)
def test_mistakes_do_not_pass(check, key, value):
    good = sources._shipped()["bert"]
    assert check.is_valid(good)
    assert not check.is_valid({**good, key: value})


def test_every_key_says_what_it_means():
    tables = {"": SCHEMA, **SCHEMA["definitions"]}
    bare = [
        f"{name}.{key}"
        for name, table in tables.items()
        for key, field in table["properties"].items()
        if not field.get("description")
    ]
    assert not bare
    assert "flag?key" in SCHEMA["properties"]["sizes"]["description"]
