"""Reports mistakes in a family file: errors name the file, the key, and what to write."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from flagscope.errors import ArchitectureError

_EXPECTED = {
    "string_type": "a string",
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "dict_type": "a table",
    "model_type": "a table",
    "tuple_type": "an array",
    "names_type": "a string or an array of strings",
}


def first_mistake(error: ValidationError, model: type[BaseModel], file: str) -> ArchitectureError:
    """The first mistake in a file that failed validation.

    Parameters
    ----------
    error
        Validation error of pydantic.
    model
        The model of the whole file.
    file
        Name of the file.
    """
    detail = error.errors()[0]
    location, kind = file + _key(detail["loc"]), detail["type"]
    if kind == "missing":
        return _missing(detail, model, file)
    if kind == "extra_forbidden":
        return _unknown(detail, model, file)
    context: Mapping[str, Any] = detail.get("ctx", {})
    if kind == "rule":
        key = f".{context['key']}" if context["key"] else ""
        return ArchitectureError(f"{location}{key}: {context['text']}", hint=context["hint"])
    expected = _EXPECTED.get(kind)
    if kind == "literal_error":
        expected = "one of " + context["expected"].replace(" or ", ", ").replace("'", "")
    if expected is None:
        return ArchitectureError(f"{location}: {detail['msg']}", hint="correct the family file")
    return ArchitectureError(
        f"{location}: expected {expected}, got {detail['input']!r}", hint="correct the family file"
    )


def _missing(detail: ErrorDetails, model: type[BaseModel], file: str) -> ArchitectureError:
    """Error for a missing key; if it is misspelt, its table has an unknown key instead."""
    *table, key = detail["loc"]
    location, content = file + _key(table), detail["input"]
    left = content.keys() - set(_keys(model, table)) if isinstance(content, dict) else ()
    near = difflib.get_close_matches(str(key), left, n=1, cutoff=0.7)
    if near:
        return ArchitectureError(
            f"{location}: unknown key {near[0]!r}", hint=f"did you mean {key!r}?"
        )
    return ArchitectureError(f"{location}: key {key!r} is missing", hint=f"add {key} to this table")


def _unknown(detail: ErrorDetails, model: type[BaseModel], file: str) -> ArchitectureError:
    *table, key = detail["loc"]
    known = _keys(model, table)
    near = difflib.get_close_matches(str(key), known, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return ArchitectureError(
        f"{file + _key(table)}: unknown key {key!r}",
        hint=f"{meant}Known keys here: {', '.join(known)}",
    )


def _key(location: Sequence[int | str]) -> str:
    """Format a location as a key, such as ``.stacks[0].attention[1].q``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _keys(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Keys that the table at a location may have."""
    label = False
    for part in location:
        if isinstance(part, int) or label:
            label = False
            continue
        annotation = next(field.annotation for name, field in model.model_fields.items()
                          if (field.alias or name) == part)  # fmt: skip
        model = _model_in(annotation) or model
        label = get_origin(annotation) is dict
    aliases = [field.alias or name for name, field in model.model_fields.items()]
    return sorted(alias for alias in aliases if not alias.startswith("("))


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in a table's annotation: itself, or within a tuple, a mapping or a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(
        (model for argument in get_args(annotation) if (model := _model_in(argument))), None
    )
