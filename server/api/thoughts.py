"""What one HTTP request thinks, on its way from the workers to the client."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from quietstar_infer.params import ThoughtParams
from server.cost import completion_passes, scoring_passes
from server.engine import Engine, RequestOutput
from server.request_metrics import RequestWatch
from server.scoring import prompt_scores

# Strong references: asyncio keeps only weak ones to its tasks.
_background: set[asyncio.Task[None]] = set()


class PromptThoughts(NamedTuple):
    """How one prompt of a request is thought about, and how many tokens may follow it."""

    params: ThoughtParams
    room_for_output: int


class RequestThoughts:
    """The thoughts of one HTTP request, which may have several prompts with `n` choices each.

    Choices are numbered as on the wire: prompt by prompt, `n` for each.
    """

    def __init__(
        self,
        params: ThoughtParams,
        num_choices: int,
        wanted: bool,
        engine: Engine,
        decode: Callable[[Sequence[int]], str],
    ) -> None:
        self.params = params
        # A request that does not think has nothing to fetch.
        self._recorded = wanted and params.budget > 0
        self.wanted = wanted
        self._num_choices = num_choices
        self._engine = engine
        self._decode = decode
        self._prompts: list[PromptThoughts] = []
        self._watches: list[RequestWatch] = []
        self._num_served = 0
        # By choice: how many tokens the client has, and thoughts fetched but not sent, by their
        # token's index.
        self._num_tokens: dict[int, int] = defaultdict(int)
        self._fetched: dict[int, dict[int, Mapping[str, Any]]] = defaultdict(dict)
        self._fresh: dict[int, range] = {}
        # By choice, what was thought before each token of its prompt; None once it is sent.
        self._about_prompt: dict[int, Sequence[Mapping[str, Any] | None] | None] = {}
        self._num_scored_tokens = 0

    def add_prompt(self, room_for_output: int, num_scored_tokens: int) -> None:
        """Announce the next prompt, in order; so many of its tokens are scored."""
        self._num_scored_tokens += num_scored_tokens
        # Unguessable: whoever knows a key can fetch what was thought under it.
        key = secrets.token_urlsafe() if self._recorded else None
        self._prompts.append(PromptThoughts(replace(self.params, record_key=key), room_for_output))
        self._watches.append(self._engine.request_metrics.watch(self.params))

    def next_prompt(self) -> PromptThoughts:
        """The announced prompts one after the other."""
        prompt = self._prompts[self._num_served]
        self._num_served += 1
        return prompt

    @property
    def in_force(self) -> dict[str, Any]:
        """The `quiet_star` object of the response."""
        in_force = {
            "thought_budget": self.params.budget,
            "thought_temperature": self.params.temperature,
            "thinking_token_budget": self.params.token_budget,
        }
        if self._num_scored_tokens:
            in_force["prompt_thought_tokens"] = self.params.budget * self._num_scored_tokens
        return in_force

    @property
    def passes(self) -> int:
        """Passes of the model for the tokens counted so far."""
        said = sum(completion_passes(self.params, tokens) for tokens in self._num_tokens.values())
        return said + scoring_passes(self.params, self._num_scored_tokens)

    def count_tokens(self, prompt: int, output: RequestOutput) -> None:
        """Note which visible tokens an output of the engine adds to its choices, and what was
        thought about its prompt."""
        self._watches[prompt].see(output)
        scores = prompt_scores(output) if self._recorded else None
        for choice_output in output.outputs:
            choice = self._choice(prompt, choice_output.index)
            start = self._num_tokens[choice]
            self._num_tokens[choice] = start + len(choice_output.token_ids)
            # Of several outputs without a chunk in between: all of their tokens.
            fresh = self._fresh.get(choice, range(start, start))
            self._fresh[choice] = range(fresh.start, self._num_tokens[choice])
            if scores is not None:
                self._about_prompt.setdefault(choice, scores.thoughts)

    async def see(self, prompt: int, output: RequestOutput) -> None:
        """Fetch what was thought about an output of the engine, and count its tokens."""
        await self.fetch(prompt)
        self.count_tokens(prompt, output)

    async def fetch_all(self) -> None:
        """Fetch what the workers have kept for every prompt."""
        for prompt in range(len(self._prompts)):
            await self.fetch(prompt)

    async def fetch(self, prompt: int) -> None:
        """Fetch what the workers have kept for one prompt since the last time."""
        key = self._prompts[prompt].params.record_key
        if key is None:
            return
        for request_id, thoughts in (await self._engine.take_thoughts(key)).items():
            choice = self._choice(prompt, self._child(request_id))
            self._fetched[choice].update({thought["index"]: thought for thought in thoughts})

    def forget(self) -> None:
        """Have the workers forget what nobody will fetch any more: an aborted request's thoughts,
        or those about tokens that the client does not get (behind a stop string). Does not wait:
        the client may be gone."""
        keys = [prompt.params.record_key for prompt in self._prompts]
        if any(keys):
            task = asyncio.create_task(self._drop([key for key in keys if key is not None]))
            _background.add(task)
            task.add_done_callback(_background.discard)

    async def _drop(self, keys: list[str]) -> None:
        for key in keys:
            await self._engine.drop_thoughts(key)

    def describe(self, response: dict[str, Any]) -> None:
        """Complete a whole response, in place."""
        response["quiet_star"] = self.in_force
        self._describe_usage(response)
        self._describe_choices(response)

    def describe_chunk(self, chunk: dict[str, Any], is_first: bool) -> None:
        """Complete one chunk of a stream, in place."""
        if is_first:
            chunk["quiet_star"] = self.in_force
        self._describe_usage(chunk)
        self._describe_choices(chunk)

    def _describe_usage(self, response: dict[str, Any]) -> None:
        usage = response.get("usage")
        if usage is None:
            return
        # A chunk in the middle of a stream reports on its own choice, its last on all.
        choices = [choice["index"] for choice in response["choices"]] or list(self._num_tokens)
        tokens = sum(self.params.thought_tokens(self._num_tokens[choice]) for choice in choices)
        usage["completion_tokens_details"] = {"reasoning_tokens": tokens}

    def _describe_choices(self, response: dict[str, Any]) -> None:
        for choice in response["choices"] if self.wanted else ():
            index = choice["index"]
            tokens = self._fresh.pop(index, range(0))
            thoughts = [self._fetched[index].pop(token, None) for token in tokens]
            choice["thoughts"] = [
                thought and self._describe_thought(thought) for thought in thoughts
            ]
            lost = any(
                thought is None and self.params.budget_at(token) > 0
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
        """Which of a prompt's choices a request of the engine is: for n > 1 its id starts with that
        number."""
        return int(request_id.partition("_")[0]) if self._num_choices > 1 else 0
