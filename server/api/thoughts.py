"""The thoughts of one HTTP request, on their way from the workers to the response."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from quietstar_infer.params import ThoughtParams
from server.admission.cost import completion_passes, scoring_passes
from server.api.scoring import prompt_scores
from server.engine.engine import Engine
from server.metrics.requests import RequestWatch
from server.vllm_api import RequestOutput

# Strong references: asyncio keeps only weak ones to its tasks.
_background: set[asyncio.Task[None]] = set()


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
    ) -> None:
        """`wanted`: the request asks for its thoughts. `decode`: token ids to text."""
        self.wanted = wanted
        self._params = params
        # A request that does not think has no thoughts to fetch.
        self._is_recorded = wanted and params.budget > 0
        self._num_choices = num_choices
        self._engine = engine
        self._decode = decode
        # By prompt: the key of its thoughts in the workers, and what its outputs are shown to.
        self._keys: list[str | None] = []
        self._watches: list[RequestWatch] = []
        # By choice: the number of tokens so far, the thoughts that were fetched but not sent, by
        # their token's index, and the tokens that were not sent.
        self._num_tokens: dict[int, int] = defaultdict(int)
        self._fetched: dict[int, dict[int, Mapping[str, Any]]] = defaultdict(dict)
        self._unsent: dict[int, range] = {}
        # By choice: the thoughts before each token of its prompt; None once they are sent.
        self._about_prompt: dict[int, Sequence[Mapping[str, Any] | None] | None] = {}
        self._num_scored_tokens = 0

    def add_prompt(self, num_scored_tokens: int) -> ThoughtParams:
        """Announce the next prompt, of which so many tokens are scored; returns how the engine is
        to think about it."""
        self._num_scored_tokens += num_scored_tokens
        # Unguessable: everyone who knows a key can fetch the thoughts recorded under it.
        key = secrets.token_urlsafe() if self._is_recorded else None
        self._keys.append(key)
        self._watches.append(self._engine.request_metrics.watch(self._params))
        return replace(self._params, record_key=key)

    @property
    def settings(self) -> dict[str, Any]:
        """The `quiet_star` object of the response."""
        settings = {
            "thought_budget": self._params.budget,
            "thought_temperature": self._params.temperature,
            "thinking_token_budget": self._params.token_budget,
        }
        if self._num_scored_tokens:
            settings["prompt_thought_tokens"] = self._params.budget * self._num_scored_tokens
        return settings

    @property
    def passes(self) -> int:
        """Passes of the model for the tokens counted so far."""
        sampled = sum(
            completion_passes(self._params, tokens) for tokens in self._num_tokens.values()
        )
        return sampled + scoring_passes(self._params, self._num_scored_tokens)

    def count_tokens(self, prompt: int, output: RequestOutput) -> None:
        """Count the visible tokens that an output of the engine adds to its choices, and keep the
        thoughts about its prompt."""
        self._watches[prompt].see(output)
        scores = prompt_scores(output) if self._is_recorded else None
        for choice_output in output.outputs:
            choice = self._choice(prompt, choice_output.index)
            start = self._num_tokens[choice]
            self._num_tokens[choice] = start + len(choice_output.token_ids)
            # After several outputs without a chunk in between: the tokens of all of them.
            unsent = self._unsent.get(choice, range(start, start))
            self._unsent[choice] = range(unsent.start, self._num_tokens[choice])
            if scores is not None:
                self._about_prompt.setdefault(choice, scores.thoughts)

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
            choice = self._choice(prompt, self._child(request_id))
            self._fetched[choice].update({thought["index"]: thought for thought in thoughts})

    def forget(self) -> None:
        """Delete from the workers what will not be fetched any more: the thoughts of an aborted
        request, or those about tokens that the client does not get (after a stop string).

        Does not wait for it: the caller may be cancelled, because the client has left.
        """
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
        response["quiet_star"] = self.settings
        self._describe_usage(response)
        self._describe_choices(response)

    def describe_chunk(self, chunk: dict[str, Any], is_first: bool) -> None:
        """Complete one chunk of a stream, in place."""
        if is_first:
            chunk["quiet_star"] = self.settings
        self._describe_usage(chunk)
        self._describe_choices(chunk)

    def _describe_usage(self, response: dict[str, Any]) -> None:
        usage = response.get("usage")
        if usage is None:
            return
        # A chunk within a stream reports on its own choice, the last one on all choices.
        choices = [choice["index"] for choice in response["choices"]] or list(self._num_tokens)
        tokens = sum(self._params.thought_tokens(self._num_tokens[choice]) for choice in choices)
        usage["completion_tokens_details"] = {"reasoning_tokens": tokens}

    def _describe_choices(self, response: dict[str, Any]) -> None:
        for choice in response["choices"] if self.wanted else ():
            index = choice["index"]
            tokens = self._unsent.pop(index, range(0))
            thoughts = [self._fetched[index].pop(token, None) for token in tokens]
            choice["thoughts"] = [
                thought and self._describe_thought(thought) for thought in thoughts
            ]
            lost = any(
                thought is None and self._params.budget_at(token) > 0
                for token, thought in zip(tokens, thoughts, strict=True)
            )
            about_prompt = self._about_prompt.get(index)
            if about_prompt is not None:
                self._about_prompt[index] = None
                choice["prompt_thoughts"] = [
                    thought and self._describe_thought(thought) for thought in about_prompt
                ]
                lost = lost or None in about_prompt[1:]
            if lost:
                choice["thoughts_truncated"] = True

    def _describe_thought(self, thought: Mapping[str, Any]) -> dict[str, Any]:
        token_ids = thought["token_ids"]
        return {
            "token_ids": token_ids,
            "text": self._decode(token_ids),
            "mixing_weight": thought["mixing_weight"],
            "base_logprob": thought["base_logprob"],
            "mixed_logprob": thought["mixed_logprob"],
        }

    def _choice(self, prompt: int, child: int) -> int:
        return prompt * self._num_choices + child

    def _child(self, request_id: str) -> int:
        """The number of an engine request among its prompt's choices: for n > 1 its id starts with
        that number."""
        return int(request_id.partition("_")[0]) if self._num_choices > 1 else 0
