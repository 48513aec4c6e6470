"""One request in flight: all the state that the server keeps of it, from validation to the end."""

import asyncio
import secrets
from collections.abc import Sequence
from copy import copy
from typing import Generic, NamedTuple, TypeVar

from quietstar_infer.params import ThoughtParams
from server.admission.cost import PromptCost, Spending, always_thinking
from server.admission.time_limit import TimeLimit
from server.api.service import Service
from server.api.thoughts import RequestThoughts
from server.requests.schemas import ThinkingChatRequest, ThinkingCompletionRequest
from server.requests.thought_headers import fields_in_headers
from server.requests.token_constraints import token_constraints
from server.requests.validation import check_options, check_prompt, cut_prompt
from server.vllm_api import EngineInput, SamplingParams, StructuredOutputsParams, TokenizerLike

_RequestT = TypeVar("_RequestT", ThinkingCompletionRequest, ThinkingChatRequest)


class AdmittedPrompt(NamedTuple):
    """How one prompt is thought about, the usage key of scoring it, if it is scored with a gate,
    and how many tokens may follow it."""

    params: ThoughtParams
    scoring_usage_key: str | None
    room: int


class Generation(Generic[_RequestT]):
    """One request in flight. It may have several prompts, each with `n` choices.

    `params` says how it thinks: parsed here, once, it travels as an object to the engine's
    sampling parameters. Its time begins with the construction of this object, and its place in the
    queue with `admit`; `close` ends both, and the place is free as soon as the engine is done,
    whether its client reads or not.
    """

    def __init__(
        self,
        request: _RequestT,
        query: Sequence[tuple[str, str]],
        headers: Sequence[tuple[str, str]],
        service: Service,
        tokenizer: TokenizerLike,
    ) -> None:
        """`query`: of the URL. `headers`: of HTTP.

        Raises `RequestError` and `ThoughtParamsError` for a request that is refused.
        """
        self.time_limit = TimeLimit(service.request_timeout)
        request.add_query(query)
        self.request: _RequestT = request
        setup = service.engine.setup
        defaults = {
            **service.engine.aliases.get(request.model or "", {}),
            **fields_in_headers(headers, setup.limits),
        }
        first_thought = request.first_thought_ids(
            lambda text: tokenizer.encode(text, add_special_tokens=False)
        )
        self.params = request.thought_params(
            setup.limits, setup.config.effort_thresholds, defaults, first_thought
        )
        check_options(request, self.params, service.model, service.allow_return)
        cut_prompt(request, self.params, service.model)
        self._ticket = service.admission.ticket()
        self.thoughts = RequestThoughts(
            self.params,
            request.n or 1,
            bool(request.return_thoughts),
            service.engine,
            lambda token_ids: tokenizer.decode(list(token_ids)),
            self._ticket.correct,
            service.usage_style,
        )
        self._model = service.model
        self._ledger = service.engine.ledger
        self._backlog = service.engine.backlog
        self._grammars = service.engine.grammars
        self._grammar_check: asyncio.Future[StructuredOutputsParams] | None = None
        self._prompts: list[AdmittedPrompt] = []
        self._num_sent = 0
        self._watched_ids: list[str] = []
        # By choice that the engine is done with: its visible tokens.
        self._ended: list[int] = []
        self._service = service
        service.num_in_flight += 1

    def admit(self, prompts: Sequence[EngineInput]) -> None:
        """Check the tokenized prompts, and take a place in the queue for them.

        Raises `RequestError` where a prompt cannot be served, or too much is in flight.
        """
        costs = [self._check(prompt) for prompt in prompts]
        self._ticket.enter(self.params, costs, self.request.n or 1)

    def _check(self, prompt: EngineInput) -> PromptCost:
        assert prompt["type"] == "token", "models of text only, whose prompts are tokens"
        token_ids = prompt["prompt_token_ids"]
        room = check_prompt(token_ids, self.request, self.params, self._model)
        num_scored = len(token_ids) - 1 if self.request.scores_prompt else 0
        self._prompts.append(AdmittedPrompt(*self.thoughts.add_prompt(num_scored), room))
        longest = self.request.max_answer_tokens
        return PromptCost(
            len(token_ids), room if longest is None else min(longest, room), num_scored
        )

    def next_prompt(self) -> AdmittedPrompt:
        """The admitted prompts in their order, one per call."""
        prompt = self._prompts[self._num_sent]
        self._num_sent += 1
        return prompt

    def check_tokens(self, sampling_params: SamplingParams) -> None:
        """Check which tokens may be sampled, and begin to check the grammar, if there is one; it is
        the same for all prompts.

        `sampling_params`: as vLLM has completed them. Raises `BadRequest`.
        """
        constraints = token_constraints(sampling_params, self._model)
        grammar = sampling_params.structured_outputs
        if grammar is not None and self._grammar_check is None:
            self._grammar_check = asyncio.ensure_future(self._grammars.check(grammar, constraints))

    async def checked_grammar(self) -> StructuredOutputsParams | None:
        """The grammar, ready for the engine, if there is one. Raises `BadRequest`."""
        return None if self._grammar_check is None else copy(await self._grammar_check)

    def watched_id(self, request_id: str) -> str:
        """The id by which the engine is to serve the next prompt: unique, whatever id the client
        gave, so that this request learns when the engine is done with it."""
        unique = f"{request_id}-{secrets.token_hex(8)}"
        self._watched_ids.append(unique)
        self._ledger.watch(unique, self._choice_ended)
        self._backlog.enter(unique, self.params)
        return unique

    def _choice_ended(self, tokens: int) -> None:
        self._ended.append(tokens)
        if len(self._ended) == len(self._prompts) * (self.request.n or 1):
            # With a gate the engine has reported it all.
            most = [always_thinking(self.params, tokens) for tokens in self._ended]
            spent = Spending() if self.params.is_gated else sum(most, self.thoughts.scoring_spent)
            self._ticket.close(spent)

    def close(self) -> None:
        """The response has been sent, or cannot be sent any more. To be called once."""
        self._service.num_in_flight -= 1
        if self._grammar_check is not None:
            self._grammar_check.cancel()
        for request_id in self._watched_ids:
            self._ledger.unwatch(request_id)
            self._backlog.leave(request_id)
        self._ticket.close(self.thoughts.spent)
        self.thoughts.forget()
