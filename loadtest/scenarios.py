"""Scenarios: command lines that are ready to use, as YAML files of options by long names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from loadtest.errors import LoadTestError

FOLDER = Path(__file__).parent / "scenarios"


@dataclass(frozen=True)
class Scenario:
    """`about` is its purpose; `options` are options of `run`, without the dashes."""

    name: str
    about: str
    options: dict[str, Any]

    def arguments(self, given: Sequence[str]) -> list[str]:
        """Its options as a command line, overridden by those given."""
        overridden = {argument.partition("=")[0] for argument in given}
        if "--budget-field" in overridden:  # takes the place of both
            overridden |= {"--budgets", "--thresholds"}
        if overridden & {"--prompts", "--sharegpt", "--dataset"}:  # there is one source of prompts
            overridden |= {"--answers"}
        own: list[str] = []
        for option, value in self.options.items():
            if f"--{option}" not in overridden:
                values = value if isinstance(value, list) else [] if value is True else [value]
                own += [f"--{option}", *map(str, values)]
        return [*own, *given]


def names() -> list[str]:
    """All scenarios, from the quickest to the longest."""
    return ["smoke", "budget-sweep", "threshold-sweep", "mixed-budgets", "overload"]


def load_scenario(name: str) -> Scenario:
    """Read a scenario; raises `LoadTestError` for an unknown name."""
    if name == "soak":
        raise LoadTestError("soak is a command of its own: `python -m loadtest soak --help`")
    if name not in names():
        raise LoadTestError(f"no scenario {name!r}; there are {', '.join(names())}")
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return Scenario(name, content["about"], content["options"])
