"""`/v1/completions`: vLLM's serving class, with thoughts."""

import json
from argparse import Namespace
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import ExitStack, aclosing
from typing import Any

from fastapi import Request

from server.admission import Admission
from server.checks import ServedModel, check_options, check_prompt
from server.cost import PromptCost
from server.engine import (
    CompletionRequest,
    CompletionResponse,
    Engine,
    EngineInput,
    ErrorResponse,
    OpenAIServingCompletion,
    RequestOutput,
    completion_parts,
)
from server.errors import RequestError
from server.limits import admission_limits
from server.protocol import ThinkingCompletionRequest
from server.refusals import LAST_EVENT, refusal_event
from server.scoring import ScoringClient
from server.thoughts import RequestThoughts
from server.time_limit import TimeLimit


class ThinkingCompletions(OpenAIServingCompletion):
    """Serves completions with thoughts.

    vLLM does the rest; the methods overridden here are the places where it looks at a tokenized
    prompt (to check it), and at the engine's outputs (to count tokens and to fetch thoughts).
    """

    def __init__(self, engine: Engine, args: Namespace) -> None:
        super().__init__(**completion_parts(engine, args))
        # The rest of the batch is for those who complete.
        self.engine_client = ScoringClient(  # type: ignore[assignment]  # it is one for the rest
            engine, max_rows=max(1, engine.max_rows // 2)
        )
        self._engine = engine
        self._allow_return = args.allow_return_thoughts
        self._admission = Admission(admission_limits(args), engine.prompt_chunk)
        self._request_timeout = args.request_timeout
        self._model = ServedModel(
            engine.context_length, engine.vocab_size, engine.setup.config.meta_token_ids
        )

    async def complete(
        self, request: ThinkingCompletionRequest, raw_request: Request, at_end: ExitStack
    ) -> ErrorResponse | dict[str, Any] | AsyncGenerator[str]:
        """A refusal, a whole response, or the lines of a stream of server-sent events.

        `at_end` is to be closed when the response has been sent, or cannot be sent any more. Raises
        `RequestError` and `ThoughtParamsError` for what is refused.
        """
        time_limit = TimeLimit(self._request_timeout)
        request.read_query(raw_request.query_params)
        params = request.thought_params(self._engine.setup.limits)
        check_options(request, params, self._model, self._allow_return)
        thoughts = RequestThoughts(
            params, request.n, bool(request.return_thoughts), self._engine, self._decode
        )
        ticket = self._admission.ticket()
        request.serve_with(thoughts, ticket)
        at_end.callback(thoughts.forget)
        at_end.callback(lambda: ticket.close(thoughts.passes))
        result = await time_limit.wait_for(self.create_completion(request, raw_request))
        if isinstance(result, ErrorResponse):
            return result
        if isinstance(result, CompletionResponse):
            await thoughts.fetch_all()
            response = result.model_dump()
            thoughts.describe(response)
            return response
        return _explained(time_limit.limit(result))

    def _decode(self, token_ids: Sequence[int]) -> str:
        text: str = self.renderer.get_tokenizer().decode(list(token_ids))
        return text

    async def render_completion_request(
        self, request: CompletionRequest
    ) -> list[EngineInput] | ErrorResponse:
        """Tokenize and check the prompts, and see whether there is room for them."""
        assert isinstance(request, ThinkingCompletionRequest)
        prompts = await super().render_completion_request(request)
        if not isinstance(prompts, ErrorResponse):
            costs = [self._check_prompt(prompt, request) for prompt in prompts]
            request.ticket.enter(request.thoughts.params, costs, request.n)
        return prompts

    def _log_inputs(self, request_id: str, inputs: Any, params: Any, lora_request: Any) -> None:
        """Check the sampling parameters: vLLM does when a stream has begun, too late for a status.

        This is the one place in its serving class that has them before.
        """
        processor = self.input_processor
        params.clone().verify(
            processor.model_config,
            processor.speculative_config,
            processor.structured_outputs_config,
            processor.tokenizer,
        )
        super()._log_inputs(request_id, inputs, params, lora_request)

    def _check_prompt(self, prompt: EngineInput, request: ThinkingCompletionRequest) -> PromptCost:
        assert prompt["type"] == "token", "models of text only, whose prompts are tokens"
        token_ids = prompt["prompt_token_ids"]
        room = check_prompt(token_ids, request.wanted_tokens, request.thoughts.params, self._model)
        scored = len(token_ids) - 1 if request.scores_prompt else 0
        request.thoughts.add_prompt(room, scored)
        wanted = room if request.max_tokens is None else min(request.max_tokens, room)
        return PromptCost(len(token_ids), wanted, scored)

    def request_output_to_completion_response(
        self, final_res_batch: list[RequestOutput], request: CompletionRequest, *args: Any
    ) -> CompletionResponse:
        """Count the tokens of a whole response while the engine's outputs are at hand."""
        assert isinstance(request, ThinkingCompletionRequest)
        for prompt, output in enumerate(final_res_batch):
            request.thoughts.count_tokens(prompt, output)
        return super().request_output_to_completion_response(final_res_batch, request, *args)

    async def completion_stream_generator(
        self,
        request: CompletionRequest,
        engine_inputs: list[EngineInput],
        result_generator: AsyncIterator[tuple[int, RequestOutput]],
        *args: Any,
        **kwargs: Any,
    ) -> AsyncGenerator[str]:
        """vLLM's stream, each chunk completed with what is known about its thoughts."""
        assert isinstance(request, ThinkingCompletionRequest)
        thoughts = request.thoughts
        outputs = thoughts.watch(result_generator)
        lines = super().completion_stream_generator(
            request, engine_inputs, outputs, *args, **kwargs
        )
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
