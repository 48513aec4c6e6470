"""Model aliases on the command line: what is understood, and what is refused."""

import argparse
from typing import Any

import pytest

from quietstar_infer.params import ThoughtLimits
from server.cli import parse_arguments
from server.errors import StartError
from server.requests.aliases import Alias, add_alias_option, checked_aliases

LIMITS = ThoughtLimits(16, 12)


def parsed(*arguments: str) -> list[Alias]:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_alias_option(parser)
    aliases: list[Alias] = parser.parse_args(arguments).alias
    return aliases


def test_an_alias_has_settings() -> None:
    (alias,) = parsed("--alias", "models/demo:think-8=budget:8,threshold:0.1")
    assert alias == ("models/demo:think-8", {"thought_budget": 8, "thought_threshold": 0.1})
    (alias,) = parsed("--alias", "slow = temperature:0, thinking_token_budget:64")
    assert alias == ("slow", {"thought_temperature": 0, "thinking_token_budget": 64})


def test_there_may_be_several() -> None:
    repeated = parsed("--alias", "a=budget:1", "--alias", "b=budget:2")
    assert repeated == parsed("--alias", "a=budget:1", "b=budget:2")
    assert [alias.name for alias in repeated] == ["a", "b"]
    assert parsed() == []


def test_they_can_come_from_a_file(tmp_path: Any) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("alias:\n  - deep=budget:16\n  - quick=budget:0\n")
    args = parse_arguments(["some/model", "--config", str(file)])
    assert args.alias == [("deep", {"thought_budget": 16}), ("quick", {"thought_budget": 0})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deep", "'deep' is not like NAME=budget:8,threshold:0.1"),
        ("=budget:8", "is not like NAME=budget:8"),
        ("deep=", "is not like NAME=budget:8"),
        ("deep=8", "the settings are budget, temperature, threshold, thinking_token_budget"),
        ("deep=budget:8,", "'' in 'deep=budget:8,' is not a setting with a value"),
        ("deep=bugdet:8", "'bugdet:8' in 'deep=bugdet:8' is not a setting with a value"),
        ("deep=thought_budget:8", "the settings are budget"),
        ("deep=budget:8,budget:9", "budget is twice in 'deep=budget:8,budget:9', must be there"),
    ],
)
def test_mistakes_are_explained(text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentError) as caught:
        parsed("--alias", text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("budget:17", "--alias deep: thought_budget is 17, this server allows a whole number"),
        ("budget:many", "--alias deep: thought_budget is 'many', must be a whole number"),
        ("budget:1.5", "--alias deep: thought_budget is 1.5, must be a whole number from 0 to 16"),
        ("threshold:-1", "--alias deep: thought_threshold is -1, must be a finite number"),
        ("temperature:101", "--alias deep: thought_temperature is 101, must be a number from 0"),
        ("thinking_token_budget:-1", "--alias deep: thinking_token_budget is -1, must be"),
        ("threshold:", "--alias deep: thought_threshold is '', must be a finite number"),
    ],
)
def test_what_the_server_does_not_allow_ends_the_start(settings: str, message: str) -> None:
    with pytest.raises(StartError) as caught:
        checked_aliases(parsed("--alias", f"deep={settings}"), ["model"], LIMITS)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("names", [("model",), ("deep", "deep")])
def test_a_name_is_given_once(names: tuple[str, ...]) -> None:
    aliases = [Alias(name, {"thought_budget": 1}) for name in names]
    with pytest.raises(StartError, match=f"--alias {names[0]}: the name is taken"):
        checked_aliases(aliases, ["model", "another"], LIMITS)
