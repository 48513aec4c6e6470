"""`/v1/completions`: vLLM's serving class, with thoughts."""

import json
from argparse import Namespace
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import ExitStack, aclosing
from typing import Any

from fastapi import Request

from server.checks import ServedModel, check_options, check_prompt
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
from server.protocol import ThinkingCompletionRequest
from server.thoughts import RequestThoughts


class ThinkingCompletions(OpenAIServingCompletion):
    """Serves completions with thoughts.

    vLLM does the rest; the methods overridden here are the places where it looks at a tokenized
    prompt (to check it), and at the engine's outputs (to count tokens and to fetch thoughts).
    """

    def __init__(self, engine: Engine, args: Namespace) -> None:
        super().__init__(**completion_parts(engine, args))
        self._engine = engine
        self._allow_return = args.allow_return_thoughts
        self._model = ServedModel(
            engine.context_length, engine.vocab_size, engine.setup.config.meta_token_ids
        )

    async def complete(
        self, request: ThinkingCompletionRequest, raw_request: Request
    ) -> ErrorResponse | dict[str, Any] | AsyncGenerator[str]:
        """A refusal, a whole response, or the lines of a stream of server-sent events.

        Raises `BadRequest` and `ThoughtParamsError` for what is wrong about our fields.
        """
        params = request.thought_params(self._engine.setup.limits)
        check_options(request, params, self._model, self._allow_return)
        thoughts = RequestThoughts(
            params, request.n, bool(request.return_thoughts), self._engine, self._decode
        )
        request.serve_with(thoughts)
        with ExitStack() as at_end:
            at_end.callback(thoughts.forget)
            result = await self.create_completion(request, raw_request)
            if isinstance(result, ErrorResponse):
                return result
            if isinstance(result, CompletionResponse):
                await thoughts.fetch_all()
                response = result.model_dump()
                thoughts.describe(response)
                return response
            # A stream has only begun: it forgets when it ends.
            return _ending_with(result, at_end.pop_all())

    def _decode(self, token_ids: Sequence[int]) -> str:
        text: str = self.renderer.get_tokenizer().decode(list(token_ids))
        return text

    async def render_completion_request(
        self, request: CompletionRequest
    ) -> list[EngineInput] | ErrorResponse:
        """Tokenize and check the prompts."""
        assert isinstance(request, ThinkingCompletionRequest)
        prompts = await super().render_completion_request(request)
        if not isinstance(prompts, ErrorResponse):
            for prompt in prompts:
                assert prompt["type"] == "token", "models of text only, whose prompts are tokens"
                room = check_prompt(
                    prompt["prompt_token_ids"],
                    request.wanted_tokens,
                    request.thoughts.params,
                    self._model,
                )
                request.thoughts.add_prompt(room)
        return prompts

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


async def _ending_with(lines: AsyncGenerator[str], at_end: ExitStack) -> AsyncGenerator[str]:
    """A stream, and what is to be done when it ends, however it ends."""
    with at_end:
        async with aclosing(lines):
            async for line in lines:
                yield line
