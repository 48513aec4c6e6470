"""Request models that stop at the first error of each list and map."""

from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic_core import SchemaValidator

_Model = TypeVar("_Model", bound=BaseModel)
# Parts of pydantic's schemas that have an error for each of their items otherwise.
_COLLECTIONS = ("list", "tuple", "set", "frozenset", "dict")
# Parts with a class, whose own validator pydantic uses rather than the part.
_CLASSES = ("model", "dataclass")


def first_errors_only(model: type[_Model]) -> type[_Model]:
    """Decorate a model: of each list or map, however deep in it, only the first error is reported.

    pydantic reports all, each as a dictionary and once for every type that an item may have: a
    request of 9 MB with a wrong item every three bytes would take more than 20 GB. Its own
    `FailFast` marks single fields, and the fields are vLLM's. Changes the model in place, and the
    models and dataclasses of its fields.
    """
    for kind in {model, *_classes_in(model.__pydantic_core_schema__)}:
        schema = _failing_fast(kind.__pydantic_core_schema__)
        kind.__pydantic_core_schema__ = schema
        kind.__pydantic_validator__ = SchemaValidator(schema, _use_prebuilt=False)
    return model


def _classes_in(part: Any) -> Iterator[Any]:
    """The classes in a schema that have validators of their own."""
    if isinstance(part, dict):
        if part.get("type") in _CLASSES and "__pydantic_validator__" in vars(part["cls"]):
            yield part["cls"]
        for name, value in part.items():
            # It names classes and functions for JSON schemas.
            if name != "metadata":
                yield from _classes_in(value)
    elif isinstance(part, list | tuple):
        for item in part:
            yield from _classes_in(item)


def _failing_fast(part: Any) -> Any:
    """A copy of a part of a schema: models share parts with each other."""
    if isinstance(part, dict):
        copied = {name: _failing_fast(value) for name, value in part.items()}
        return {**copied, "fail_fast": True} if copied.get("type") in _COLLECTIONS else copied
    if isinstance(part, list):
        return [_failing_fast(item) for item in part]
    if type(part) is tuple:
        return tuple(_failing_fast(item) for item in part)
    return part
