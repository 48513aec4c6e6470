"""A request's thought parameters, and what a server allows."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quietstar_infer.errors import ThoughtParamsError

# Thoughts of this temperature are noise already; far above it, tokens that must not be sampled
# become as likely as all others.
MAX_TEMPERATURE = 100.0


@dataclass(frozen=True)
class ThoughtLimits:
    """What a server allows, and the defaults of requests. `max_budget` 0 means that thinking is
    off; temperatures are from 0 (greedy) to `MAX_TEMPERATURE`, thresholds in nats.

    Raises `ValueError` where they contradict each other.
    """

    max_budget: int
    default_budget: int
    default_temperature: float = 1.0
    default_threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.max_budget < 0:
            raise ValueError(f"the largest thought budget is {self.max_budget}, must be 0 or more")
        if not 0 <= self.default_budget <= self.max_budget:
            raise ValueError(
                f"the default thought budget is {self.default_budget}, must be from 0 to "
                f"{self.max_budget} (the largest thought budget)"
            )
        if not _is_temperature(self.default_temperature):
            raise ValueError(
                f"the default thought temperature is {self.default_temperature}, must be a number "
                f"from 0 (greedy) to {MAX_TEMPERATURE:g}"
            )
        if not is_finite_from_zero(self.default_threshold):
            raise ValueError(
                f"the default thought threshold is {self.default_threshold}, must be a finite "
                "number from 0 (think before every token) up, in nats"
            )


@dataclass(frozen=True)
class ThoughtParams:
    """How one request thinks.

    `budget`: sampled thought tokens before each visible token, 0 = no thinking. `temperature`: of
    the thoughts, 0 = greedy. `threshold`: the request thinks before a token only where the expected
    gain of the thought is above this (nats), 0 = before every token. `token_budget`: thought tokens
    for the whole request; once they are spent, it goes on without thinking. `record_key`: if set,
    the worker logs the request's thoughts under this key until they are fetched. `usage_key`: if
    set, the engine reports under this key how often the request has thought. `forced_tokens`: the
    visible tokens, where they are given and only their log-probabilities are wanted.
    `first_thought`: the tokens of the thought before the first visible token, where it is given: it
    is thought whatever budget and threshold are, and counts as any other.
    """

    budget: int
    temperature: float = 1.0
    threshold: float = 0.0
    token_budget: int | None = None
    record_key: str | None = None
    usage_key: str | None = None
    forced_tokens: tuple[int, ...] = ()
    first_thought: tuple[int, ...] = ()

    @classmethod
    def from_mapping(
        cls, fields: Mapping[str, Any] | None, limits: ThoughtLimits
    ) -> "ThoughtParams":
        """Read a request's `extra_args`; raises `ThoughtParamsError`, saying what is allowed."""
        fields = fields or {}
        first_thought = _first_thought(fields.get("first_thought"), limits)
        return cls(
            budget=_budget(fields.get("thought_budget"), limits),
            temperature=_temperature(fields.get("thought_temperature"), limits),
            threshold=_threshold(fields.get("thought_threshold"), limits),
            token_budget=_token_budget(fields.get("thinking_token_budget"), len(first_thought)),
            record_key=fields.get("thought_record_key"),
            usage_key=fields.get("thought_usage_key"),
            forced_tokens=tuple(fields.get("thought_forced_tokens", ())),
            first_thought=first_thought,
        )

    def to_mapping(self) -> dict[str, Any]:
        """The inverse of `from_mapping`, for `SamplingParams.extra_args`."""
        fields: dict[str, Any] = {
            "thought_budget": self.budget,
            "thought_temperature": self.temperature,
            "thought_threshold": self.threshold,
        }
        if self.token_budget is not None:
            fields["thinking_token_budget"] = self.token_budget
        if self.record_key is not None:
            fields["thought_record_key"] = self.record_key
        if self.usage_key is not None:
            fields["thought_usage_key"] = self.usage_key
        if self.forced_tokens:
            fields["thought_forced_tokens"] = list(self.forced_tokens)
        if self.first_thought:
            fields["first_thought"] = list(self.first_thought)
        return fields

    @property
    def longest_thought(self) -> int:
        """Tokens of the longest thought that the request may have; 0 = it does not think."""
        return max(self.budget, len(self.first_thought))

    @property
    def is_gated(self) -> bool:
        """Whether it is decided at every token anew if the request thinks about it."""
        return self.budget > 0 and self.threshold > 0

    def budget_after(self, spent: int) -> int:
        """Thought tokens before the next visible token, if the request thinks about it, when it has
        spent so many: the last thought is shortened to what is left. A given thought is the first.
        """
        if spent == 0 and self.first_thought:
            return len(self.first_thought)
        if self.token_budget is None:
            return self.budget
        return max(0, min(self.budget, self.token_budget - spent))

    def budget_at(self, index: int) -> int:
        """Of a request that thinks before every token: thought tokens before visible token number
        `index` (0 = the first after the prompt).

        A pure function of the index, so that a preempted request, or a scheduler that runs ahead of
        the sampler, needs no count of what was spent.
        """
        return self.budget_after(self.thought_tokens(index))

    def thought_tokens(self, num_visible: int) -> int:
        """Of a request that thinks before every token: thought tokens before the first
        `num_visible` visible ones, START and END not counted.
        """
        given = len(self.first_thought) if num_visible else 0
        total = given + self.budget * (num_visible - bool(given))
        return total if self.token_budget is None else min(total, self.token_budget)

    @property
    def reserve(self) -> int:
        """Positions of the context that the longest thought needs beyond the visible text: START,
        thought, END, less the visible token that follows it.
        """
        return self.longest_thought + 1 if self.longest_thought else 0


def _budget(value: Any, limits: ThoughtLimits) -> int:
    if value is None:
        return limits.default_budget
    allowed = f"a whole number from 0 to {limits.max_budget}"
    if type(value) is not int or not value >= 0:
        raise ThoughtParamsError(
            f"thought_budget is {value!r}, must be {allowed}", "thought_budget"
        )
    if value > 0 and limits.max_budget == 0:
        raise ThoughtParamsError(
            f"thought_budget is {value}, but thinking is off on this server: only 0 is allowed",
            "thought_budget",
        )
    if value > limits.max_budget:
        raise ThoughtParamsError(
            f"thought_budget is {value}, this server allows {allowed}", "thought_budget"
        )
    return value


def is_finite_from_zero(value: Any) -> bool:
    """Whether a value is a finite number from 0 up: a temperature or a threshold."""
    return type(value) in (int, float) and 0 <= value <= sys.float_info.max


def _is_temperature(value: Any) -> bool:
    return is_finite_from_zero(value) and value <= MAX_TEMPERATURE


def _temperature(value: Any, limits: ThoughtLimits) -> float:
    if value is None:
        return limits.default_temperature
    if not _is_temperature(value):
        raise ThoughtParamsError(
            f"thought_temperature is {value!r}, must be a number from 0 (greedy) to "
            f"{MAX_TEMPERATURE:g}",
            "thought_temperature",
        )
    return float(value)


def _threshold(value: Any, limits: ThoughtLimits) -> float:
    if value is None:
        return limits.default_threshold
    if not is_finite_from_zero(value):
        raise ThoughtParamsError(
            f"thought_threshold is {value!r}, must be a finite number from 0 (think before every "
            "token) up, in nats",
            "thought_threshold",
        )
    return float(value)


def _token_budget(value: Any, given: int) -> int | None:
    """`given`: the length of a given thought, which is not shortened."""
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise ThoughtParamsError(
            f"thinking_token_budget is {value!r}, must be a whole number from 0 up, "
            "the thought tokens of the whole request",
            "thinking_token_budget",
        )
    if value < given:
        raise ThoughtParamsError(
            f"thinking_token_budget is {value}, but first_thought has {given} tokens already: "
            "it must be at least that",
            "thinking_token_budget",
        )
    return value


def _first_thought(value: Any, limits: ThoughtLimits) -> tuple[int, ...]:
    if value is None:
        return ()
    allowed = f"1 to {limits.max_budget} token ids"
    if limits.max_budget == 0:
        raise ThoughtParamsError(
            "first_thought is given, but thinking is off on this server", "first_thought"
        )
    if not isinstance(value, list | tuple) or any(type(token) is not int for token in value):
        raise ThoughtParamsError(
            f"first_thought is not a list of token ids, must be {allowed}", "first_thought"
        )
    if not 1 <= len(value) <= limits.max_budget:
        raise ThoughtParamsError(
            f"first_thought has {len(value)} tokens, this server allows 1 to {limits.max_budget}",
            "first_thought",
        )
    return tuple(value)
