"""Model aliases: further names of the model, each with settings of its own, for clients that can
choose a model but send no fields.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from quietstar_infer.errors import ThoughtParamsError
from quietstar_infer.params import ThoughtLimits
from server.errors import StartError
from server.requests.thought_fields import THOUGHT_FIELDS, check_thought_fields, json_value

# What a setting is called in --alias: a field's name may be left without its "thought_".
_FIELDS = {field.removeprefix("thought_"): field for field in THOUGHT_FIELDS}


class Alias(NamedTuple):
    """A name, and the request fields that it stands for."""

    name: str
    fields: Mapping[str, Any]


def add_alias_option(group: Any) -> None:
    """Add --alias to a group of a parser."""
    group.add_argument(
        "--alias",
        type=_alias,
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=SETTINGS",
        help="names of the model with defaults of their own, for clients that send no fields of "
        f"ours: NAME=budget:8,threshold:0.1 ({', '.join(_FIELDS)})",
    )


def checked_aliases(
    aliases: Sequence[Alias], model_names: Sequence[str], limits: ThoughtLimits
) -> Mapping[str, Mapping[str, Any]]:
    """The fields of each alias, by its name. Raises `StartError` for a name that is taken, and for
    settings that the server does not allow."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, fields in aliases:
        if name in model_names or name in found:
            raise StartError(f"--alias {name}: the name is taken, each must be another")
        try:
            check_thought_fields(fields, limits)
        except ThoughtParamsError as error:
            raise StartError(f"--alias {name}: {error}") from error
        found[name] = fields
    return found


def _alias(text: str) -> Alias:
    name, _, settings = text.partition("=")
    if not name.strip() or not settings.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not like NAME=budget:8,threshold:0.1")
    fields: dict[str, Any] = {}
    for setting in settings.split(","):
        key, colon, value = (part.strip() for part in setting.partition(":"))
        if key not in _FIELDS or not colon:
            raise argparse.ArgumentTypeError(
                f"{setting!r} in {text!r} is not a setting with a value: the settings are "
                f"{', '.join(_FIELDS)}, for instance budget:8"
            )
        if _FIELDS[key] in fields:
            raise argparse.ArgumentTypeError(f"{key} is twice in {text!r}, must be there once")
        fields[_FIELDS[key]] = json_value(value)
    return Alias(name.strip(), fields)
