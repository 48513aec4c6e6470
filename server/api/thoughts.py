"""The thoughts of one HTTP request, on their way from the workers to the response."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from quietstar_infer.params import ThoughtParams
from server.admission.cost import Spending
from server.api.scoring import prompt_scores
from server.api.usage import RequestUsage, UsageStyle
from server.engine.engine import Engine
from server.engine.usage_ledger import OnSpending
from server.vllm_api import RequestOutput

# Strong references: asyncio keeps only weak ones to its tasks.
_background: set[asyncio.Task[None]] = set()


class PromptThoughts(NamedTuple):
    """How the engine is to think about one prompt: `params`, and, where the prompt itself is
    scored, the `usage_key` of that."""

    params: ThoughtParams
    scoring_usage_key: str | None


class RequestThoughts:
    """The thoughts and the token counts of one HTTP request, which may have several prompts with
    `n` choices each.

    Choices are numbered as in the response: prompt by prompt, `n` for each.
    """

    def __init__(
        self,
        params: ThoughtParams,
        num_choices: int,
        wanted: bool,
        engine: Engine,
        decode: Callable[[Sequence[int]], str],
        on_spending: OnSpending,
        usage_style: UsageStyle,
    ) -> None:
        """`wanted`: the request asks for its thoughts. `decode`: token ids to text. `on_spending`:
        told of what the engine reports that a request with a gate has spent."""
        self.wanted = wanted
        self._usage_style = usage_style
        self._params = params
        # A request that does not think has no thoughts to fetch.
        self._is_recorded = wanted and params.longest_thought > 0
        self._engine = engine
        self._decode = decode
        self._usage = RequestUsage(params, num_choices, engine.ledger, on_spending)
        # By prompt: the key of its thoughts in the workers.
        self._keys: list[str | None] = []
        # By choice: the thoughts that were fetched but not sent, by their token's index, the tokens
        # that were not sent, and the thought tokens that were sent.
        self._fetched: dict[int, dict[int, Mapping[str, Any]]] = defaultdict(dict)
        self._unsent: dict[int, range] = {}
        self._num_sent: dict[int, int] = defaultdict(int)
        # By choice: the thoughts before each token of its prompt; None once they are sent.
        self._about_prompt: dict[int, Sequence[Mapping[str, Any] | None] | None] = {}

    def add_prompt(self, num_scored_tokens: int) -> PromptThoughts:
        """Announce the next prompt, of which so many tokens are scored."""
        # Unguessable: everyone who knows a key can fetch the thoughts recorded under it.
        key = secrets.token_urlsafe() if self._is_recorded else None
        self._keys.append(key)
        usage_keys = self._usage.add_prompt(num_scored_tokens)
        params = replace(self._params, record_key=key, usage_key=usage_keys.answers)
        return PromptThoughts(params, usage_keys.scoring)

    @property
    def settings(self) -> dict[str, Any]:
        """What the `quiet_star` object of a response says from the start."""
        return {
            "thought_budget": self._params.budget,
            "thought_temperature": self._params.temperature,
            "thought_threshold": self._params.threshold,
            "thinking_token_budget": self._params.token_budget,
            "gate": self._engine.gate_kind if self._params.is_gated else None,
        }

    @property
    def spent(self) -> Spending:
        """What the whole request has spent, as far as its outputs were counted."""
        return self._usage.total

    @property
    def scoring_spent(self) -> Spending:
        """What it has taken to score its prompts, as far as the engine has reported it."""
        return self._usage.of_prompts

    def count_tokens(self, prompt: int, output: RequestOutput) -> None:
        """Count the visible tokens that an output of the engine adds to its choices, and keep the
        thoughts about its prompt."""
        about_prompt = self._thoughts_about_prompt(output) if self.wanted else None
        for choice_output in output.outputs:
            choice = self._usage.choice(prompt, choice_output.index)
            new = self._usage.add_tokens(choice, len(choice_output.token_ids))
            # After several outputs without a chunk in between: the tokens of all of them.
            unsent = self._unsent.get(choice, new)
            self._unsent[choice] = range(unsent.start, new.stop)
            if about_prompt is not None:
                self._about_prompt.setdefault(choice, about_prompt)

        def thought_tokens(child: int) -> int:
            return self._usage.of_choice(self._usage.choice(prompt, child)).thought_tokens

        self._engine.request_metrics.observe(self._params, output, thought_tokens)

    def _thoughts_about_prompt(
        self, output: RequestOutput
    ) -> Sequence[Mapping[str, Any] | None] | None:
        """The thought before each token of a prompt that is scored."""
        if not self._params.budget and self._usage.scores_prompts:
            return [None] * len(output.prompt_token_ids or ())
        scores = prompt_scores(output)
        return None if scores is None else scores.thoughts

    async def see(self, prompt: int, output: RequestOutput) -> None:
        """Fetch the thoughts about an output of the engine, and count its tokens."""
        await self.fetch(prompt)
        self.count_tokens(prompt, output)

    async def fetch_all(self) -> None:
        """Fetch what the workers have recorded for all prompts."""
        for prompt in range(len(self._keys)):
            await self.fetch(prompt)

    async def fetch(self, prompt: int) -> None:
        """Fetch what the workers have recorded for one prompt since the last call."""
        key = self._keys[prompt]
        if key is None:
            return
        for request_id, thoughts in (await self._engine.take_thoughts(key)).items():
            choice = self._usage.choice(prompt, self._usage.child(request_id))
            self._fetched[choice].update({thought["index"]: thought for thought in thoughts})

    def forget(self) -> None:
        """Forget the request, and delete from the workers what will not be fetched any more: the
        thoughts of an aborted request, or those about tokens that the client does not get (after a
        stop string).

        Does not wait for it: the caller may be cancelled, because the client has left.
        """
        self._usage.close()
        keys = [key for key in self._keys if key is not None]
        if keys:
            task = asyncio.create_task(self._drop(keys))
            _background.add(task)
            task.add_done_callback(_background.discard)

    async def _drop(self, keys: list[str]) -> None:
        for key in keys:
            await self._engine.drop_thoughts(key)

    def describe(self, response: dict[str, Any]) -> None:
        """Complete a whole response, in place."""
        response["quiet_star"] = self.settings | self._counts() | self._prompt_counts
        self._describe_usage(response, self._usage.of_choices())
        self._describe_choices(response)

    def describe_chunk(self, chunk: dict[str, Any], is_first: bool) -> None:
        """Complete one chunk of a stream, in place."""
        quiet_star = self.settings | self._prompt_counts if is_first else {}
        if chunk.get("usage") is not None:
            # A chunk within a stream reports on its own choice, the last one on all choices.
            choices = [choice["index"] for choice in chunk["choices"]] or None
            quiet_star |= self._counts(choices) | ({} if choices else self._prompt_counts)
            self._describe_usage(chunk, self._usage.of_choices(choices))
        if quiet_star:
            chunk["quiet_star"] = quiet_star
        self._describe_choices(chunk)

    def _counts(self, choices: Sequence[int] | None = None) -> dict[str, Any]:
        """What some choices have spent, or all."""
        spent = self._usage.of_choices(choices)
        return {"thoughts": spent.thoughts, "passes": spent.passes(self._params.is_gated)}

    @property
    def _prompt_counts(self) -> dict[str, Any]:
        """What was spent to score the prompts, if they are scored."""
        if not self._usage.scores_prompts:
            return {}
        spent = self._usage.of_prompts
        return {
            "prompt_thought_tokens": spent.thought_tokens,
            "prompt_thoughts": spent.thoughts,
            "prompt_passes": spent.passes(self._params.is_gated),
        }

    def _describe_usage(self, response: dict[str, Any], spent: Spending) -> None:
        if response.get("usage") is not None:
            self._usage_style.report(response["usage"], spent.thought_tokens)

    def _describe_choices(self, response: dict[str, Any]) -> None:
        for choice in response["choices"] if self.wanted else ():
            index = choice["index"]
            tokens = self._unsent.pop(index, range(0))
            thoughts = [self._fetched[index].pop(token, None) for token in tokens]
            choice["thoughts"] = [
                thought and self._describe_thought(thought) for thought in thoughts
            ]
            are_lost = [
                self._is_lost(index, token, thought)
                for token, thought in zip(tokens, thoughts, strict=True)
            ]
            lost = any(are_lost)
            about_prompt = self._about_prompt.get(index)
            if about_prompt is not None:
                self._about_prompt[index] = None
                choice["prompt_thoughts"] = [
                    thought and self._describe_thought(thought) for thought in about_prompt
                ]
                lost = lost or (self._params.budget > 0 and None in about_prompt[1:])
            if lost:
                choice["thoughts_truncated"] = True

    def _is_lost(self, choice: int, token: int, thought: Mapping[str, Any] | None) -> bool:
        """Whether the workers had no room for the thought before a choice's next token."""
        if thought is not None:
            self._num_sent[choice] += len(thought["token_ids"])
            return False
        if self._params.is_gated:
            # None is considered once the token budget is spent. What was lost before is not
            # counted, but reported with its own token.
            return self._params.budget_after(self._num_sent[choice]) > 0
        return self._params.budget_at(token) > 0

    def _describe_thought(self, thought: Mapping[str, Any]) -> dict[str, Any]:
        token_ids = thought["token_ids"]
        return {
            "expected_gain": thought["expected_gain"],
            "token_ids": token_ids,
            "text": self._decode(token_ids) if token_ids else "",
            "mixing_weight": thought["mixing_weight"],
            "base_logprob": thought["base_logprob"],
            "mixed_logprob": thought["mixed_logprob"],
        }
