"""What completions and chats share: vLLM's serving classes, with thoughts."""

import json
from argparse import Namespace
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import ExitStack, aclosing
from typing import Any, TypeAlias

from fastapi import Request

from server.admission import Admission
from server.checks import ServedModel, check_options, check_prompt
from server.cost import PromptCost
from server.engine import (
    ChatCompletionResponse,
    CompletionResponse,
    Engine,
    EngineInput,
    ErrorResponse,
    GenerateBaseServing,
    ServingParts,
)
from server.errors import RequestError
from server.limits import admission_limits
from server.protocol import ThinkingRequest
from server.refusals import LAST_EVENT, refusal_event
from server.scoring import ScoringClient
from server.thoughts import RequestThoughts
from server.time_limit import TimeLimit

# A refusal, a whole response, or the lines of a stream of server-sent events.
Answer: TypeAlias = ErrorResponse | dict[str, Any] | AsyncGenerator[str]
# The same as vLLM has it.
PlainAnswer: TypeAlias = (
    ErrorResponse | CompletionResponse | ChatCompletionResponse | AsyncGenerator[str]
)


class Service:
    """What there is one of in a server, whatever the endpoints: the engine, the queue before it,
    the limits."""

    def __init__(self, engine: Engine, args: Namespace) -> None:
        self.engine = engine
        self.parts = ServingParts(engine, args)
        # The rest of the batch is for those who do not score.
        self.client = ScoringClient(engine, max_rows=max(1, engine.max_rows // 2))
        self.admission = Admission(admission_limits(args), engine.prompt_chunk)
        self.allow_return = bool(args.allow_return_thoughts)
        self.request_timeout = float(args.request_timeout)
        self.model = ServedModel(
            engine.context_length,
            engine.vocab_size,
            engine.setup.config.meta_token_ids,
            engine.has_priorities,
        )


class ThinkingServing(GenerateBaseServing):
    """Mixed into a serving class of vLLM's, which does the rest.

    The subclasses override the methods in which vLLM looks at a tokenized prompt (to check it), and
    at the engine's outputs (to count tokens and to fetch thoughts).
    """

    def __init__(self, service: Service, parts: dict[str, Any]) -> None:
        """`parts`: what the class of vLLM's is made from."""
        super().__init__(**parts)
        self.engine_client = service.client  # type: ignore[assignment]  # it is one for the rest
        self._service = service

    async def answer(
        self,
        request: ThinkingRequest,
        raw_request: Request,
        at_end: ExitStack,
        serve: Callable[[], Awaitable[PlainAnswer]],
    ) -> Answer:
        """The answer of `serve`, vLLM's own, with thoughts.

        `at_end` is to be closed when the response has been sent, or cannot be sent any more. Raises
        `RequestError` and `ThoughtParamsError` for what is refused.
        """
        service = self._service
        time_limit = TimeLimit(service.request_timeout)
        request.read_query(raw_request.query_params)
        params = request.thought_params(service.engine.setup.limits)
        check_options(request, params, service.model, service.allow_return)
        thoughts = RequestThoughts(
            params, request.n or 1, bool(request.return_thoughts), service.engine, self._decode
        )
        ticket = service.admission.ticket()
        request.serve_with(thoughts, ticket)
        at_end.callback(thoughts.forget)
        at_end.callback(lambda: ticket.close(thoughts.passes))
        result = await time_limit.wait_for(serve())
        if isinstance(result, ErrorResponse):
            return result
        if isinstance(result, AsyncGenerator):
            return _explained(time_limit.limit(result))
        await thoughts.fetch_all()
        response = result.model_dump()
        thoughts.describe(response)
        return response

    def _decode(self, token_ids: Sequence[int]) -> str:
        text: str = self.renderer.get_tokenizer().decode(list(token_ids))
        return text

    def _admit(self, request: ThinkingRequest, prompts: list[EngineInput]) -> None:
        """Check the tokenized prompts, and see whether there is room for them."""
        costs = [self._check_prompt(prompt, request) for prompt in prompts]
        request.ticket.enter(request.thoughts.params, costs, request.n or 1)

    def _check_prompt(self, prompt: EngineInput, request: ThinkingRequest) -> PromptCost:
        assert prompt["type"] == "token", "models of text only, whose prompts are tokens"
        token_ids = prompt["prompt_token_ids"]
        room = check_prompt(token_ids, request, request.thoughts.params, self._service.model)
        scored = len(token_ids) - 1 if request.scores_prompt else 0
        request.thoughts.add_prompt(room, scored)
        longest = request.max_answer_tokens
        return PromptCost(len(token_ids), room if longest is None else min(longest, room), scored)

    def _log_inputs(self, request_id: str, inputs: Any, params: Any, lora_request: Any) -> None:
        """Check the sampling parameters: vLLM does when a stream has begun, too late for a status.

        This is the one place in its serving classes that has them before.
        """
        processor = self.input_processor
        params.clone().verify(
            processor.model_config,
            processor.speculative_config,
            processor.structured_outputs_config,
            processor.tokenizer,
        )
        super()._log_inputs(request_id, inputs, params, lora_request)


async def described(
    lines: AsyncGenerator[str], outputs: AsyncGenerator[Any], thoughts: RequestThoughts
) -> AsyncGenerator[str]:
    """The lines of vLLM's stream, each chunk completed with what is known about its thoughts.

    `outputs`: what the stream is made from.
    """
    is_first = True
    # Closed explicitly, outside in: an abandoned stream must reach the engine as an abort.
    async with aclosing(outputs), aclosing(lines):
        async for line in lines:
            yield _described(line, thoughts, is_first)
            is_first = False


def _described(line: str, thoughts: RequestThoughts, is_first: bool) -> str:
    """A line of a stream; the chunk in it, if it is one, completed."""
    payload = line.removeprefix("data: ").strip()
    if payload == "[DONE]":
        return line
    chunk = json.loads(payload)
    if "choices" not in chunk:
        return line  # an error
    thoughts.describe_chunk(chunk, is_first)
    return f"data: {json.dumps(chunk, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def _explained(lines: AsyncGenerator[str]) -> AsyncGenerator[str]:
    """A stream whose refusal, if there is one, is its last chunk: its status is out already."""
    try:
        async with aclosing(lines):
            async for line in lines:
                yield line
    except RequestError as error:
        yield refusal_event(error)
        yield LAST_EVENT
