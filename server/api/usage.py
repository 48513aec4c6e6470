"""What one HTTP request has spent: visible tokens, thoughts and thought tokens.

Computed where a request thinks before every token. Where a gate decides, looked up in the ledger of
what the engine has reported.
"""

from argparse import Namespace
from collections import defaultdict
from collections.abc import MutableMapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from quietstar_infer.params import ThoughtParams
from server.admission.cost import Spending, always_thinking
from server.engine.usage_ledger import OnSpending, UsageLedger


class UsageStyle(StrEnum):
    """How the `usage` of a response reports thought tokens."""

    VISIBLE = "visible"
    """Beside `completion_tokens`, which are the visible ones, in `thought_tokens`: whoever knows of
    no thoughts finds text, speed and length to agree."""
    OPENAI = "openai"
    """As OpenAI reports the reasoning that it charges for: `completion_tokens` includes them, and
    `completion_tokens_details.reasoning_tokens` says how many they are."""

    def report(self, usage: MutableMapping[str, Any], thought_tokens: int) -> None:
        """Complete vLLM's `usage`, which counts visible tokens, in place."""
        # vLLM's own are those of the text that a reasoning parser takes for reasoning.
        details = usage.pop("completion_tokens_details", None)
        if self is UsageStyle.VISIBLE:
            usage["thought_tokens"] = thought_tokens
            usage.update({"completion_tokens_details": details} if details else {})
            return
        for total in ("completion_tokens", "total_tokens"):
            usage[total] += thought_tokens
        reasoning_tokens = thought_tokens + (details or {}).get("reasoning_tokens", 0)
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning_tokens}


def add_usage_option(group: Any) -> None:
    """Add --usage to a group of a parser."""
    group.add_argument(
        "--usage",
        choices=[style.value for style in UsageStyle],
        default=UsageStyle.VISIBLE.value,
        help="where the usage of an answer has its thought tokens: beside completion_tokens, in "
        "thought_tokens (visible), or within them, with reasoning_tokens in "
        "completion_tokens_details, as OpenAI reports reasoning (openai) (default: %(default)s)",
    )


def usage_style(args: Namespace) -> UsageStyle:
    """The style of a parsed command line."""
    return UsageStyle(args.usage)


class UsageKeys(NamedTuple):
    """Under which the engine reports on one prompt's answers, and on scoring the prompt itself;
    None where nothing is to be reported."""

    answers: str | None
    scoring: str | None


class RequestUsage:
    """What one HTTP request has spent, which may have several prompts with `n` choices each.

    Choices are numbered as in the response: prompt by prompt, `n` for each.
    """

    def __init__(
        self,
        params: ThoughtParams,
        num_choices: int,
        ledger: UsageLedger,
        on_spending: OnSpending,
    ) -> None:
        """`on_spending`: told of what the engine reports, as soon as it does."""
        self._params = params
        self._num_choices = num_choices
        self._ledger = ledger
        self._on_spending = on_spending
        # By prompt: its keys, and how many of its tokens are scored.
        self._keys: list[UsageKeys] = []
        self._num_scored: list[int] = []
        # By choice: the number of its tokens so far.
        self._num_tokens: dict[int, int] = defaultdict(int)

    def add_prompt(self, num_scored_tokens: int) -> UsageKeys:
        """Announce the next prompt, of which so many tokens are scored."""
        is_gated = self._params.is_gated
        keys = UsageKeys(
            self._ledger.open(self._on_spending) if is_gated else None,
            self._ledger.open(self._on_spending) if is_gated and num_scored_tokens else None,
        )
        self._keys.append(keys)
        self._num_scored.append(num_scored_tokens)
        return keys

    def close(self) -> None:
        """Forget what the engine has reported: nothing is asked any more."""
        for key in (key for keys in self._keys for key in keys):
            if key is not None:
                self._ledger.close(key)

    def choice(self, prompt: int, child: int) -> int:
        """The number in the response of a prompt's choice."""
        return prompt * self._num_choices + child

    def child(self, request_id: str) -> int:
        """The number of an engine request among its prompt's choices: for n > 1 its id starts with
        that number."""
        return int(request_id.partition("_")[0]) if self._num_choices > 1 else 0

    def add_tokens(self, choice: int, number: int) -> range:
        """Count new tokens of a choice; returns their indices."""
        start = self._num_tokens[choice]
        self._num_tokens[choice] = start + number
        return range(start, start + number)

    def of_choice(self, choice: int) -> Spending:
        """What the tokens of a choice have taken that were counted so far."""
        tokens = self._num_tokens[choice]
        prompt, child = divmod(choice, self._num_choices)
        key = self._keys[prompt].answers
        if key is None:
            return always_thinking(self._params, tokens)
        for request_id, history in self._ledger.histories(key).items():
            if self.child(request_id) == child:
                return history.after(tokens)
        return Spending(tokens)

    def of_choices(self, choices: Sequence[int] | None = None) -> Spending:
        """The same of several choices, or of all."""
        numbers = list(self._num_tokens) if choices is None else choices
        return sum((self.of_choice(choice) for choice in numbers), Spending())

    @property
    def scores_prompts(self) -> bool:
        """Whether tokens of prompts are scored."""
        return any(self._num_scored)

    @property
    def of_prompts(self) -> Spending:
        """What it has taken to score the prompts; nothing without thoughts, because prefilling a
        prompt scores it."""
        if not self._params.budget:
            return Spending()
        return sum((self._of_prompt(prompt) for prompt in range(len(self._keys))), Spending())

    def _of_prompt(self, prompt: int) -> Spending:
        key, num_scored = self._keys[prompt].scoring, self._num_scored[prompt]
        if key is None:
            return always_thinking(self._params, num_scored)
        reported = [history.latest for history in self._ledger.histories(key).values()]
        spent = sum(reported, Spending())
        # An answer begins when its prompt has been scored, all of it.
        first = self.choice(prompt, 0)
        answers = range(first, first + self._num_choices)
        if any(choice in self._num_tokens for choice in answers):
            return Spending(num_scored, spent.thoughts, spent.thought_tokens)
        return spent

    @property
    def total(self) -> Spending:
        """What the whole request has spent so far."""
        return self.of_choices() + self.of_prompts
