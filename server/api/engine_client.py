"""The engine's client as one request in flight uses it.

vLLM's serving classes know nothing of thoughts. They call `generate` once per prompt, in order,
before they begin a response: here sampling parameters become those of a thinking request.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from server.api.engine_outputs import with_prompt_logprobs, without_tokens
from server.api.failed_generation import without_failures
from server.api.generation import Generation
from server.api.scoring import with_params
from server.api.service import Service
from server.requests.bad_words import block_words
from server.requests.validation import check_sampling
from server.vllm_api import AsyncLLM, EngineInput, RequestOutput, SamplingParams

# Of the thoughts of a request that asks for the likeliest tokens, and names no seed: it asks for
# the same answer every time, and thoughts are sampled.
GREEDY_SEED = 0


class RequestClient:
    """vLLM's client, whose `generate` thinks as one request asks; everything else is unchanged."""

    def __init__(self, service: Service, generation: Generation[Any]) -> None:
        self._client: AsyncLLM = service.engine.client
        self._scorer = service.scorer
        self._generation = generation

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def generate(
        self,
        prompt: EngineInput,
        sampling_params: SamplingParams,
        request_id: str,
        **options: Any,
    ) -> AsyncGenerator[RequestOutput]:
        """As vLLM's `AsyncLLM.generate`, but checks the sampling parameters at once: vLLM checks
        them with the first output, when the status of a stream has been sent."""
        params, scoring_usage_key, room = self._generation.next_prompt()
        # In vLLM the same name belongs to models that think in their visible text.
        sampling_params.thinking_token_budget = None
        assert sampling_params.max_tokens is not None, "vLLM's serving classes set it"
        sampling_params.max_tokens = min(sampling_params.max_tokens, room)
        if sampling_params.temperature == 0 and sampling_params.seed is None and params.budget > 0:
            sampling_params.seed = GREEDY_SEED
        check_sampling(sampling_params, params)
        block_words(sampling_params, self._client.input_processor.renderer.get_tokenizer())
        self._generation.check_tokens(self._verified(sampling_params))
        request_id = self._generation.watched_id(request_id)
        if sampling_params.prompt_logprobs is not None and params.budget > 0:
            outputs = self._scorer.generate(
                prompt, sampling_params, params, scoring_usage_key, request_id, options
            )
        else:
            sampling_params.extra_args = with_params(sampling_params, params)
            outputs = self._client.generate(prompt, sampling_params, request_id, **options)
        outputs = without_failures(outputs)
        if sampling_params.prompt_logprobs is not None and sampling_params.n > 1:
            outputs = with_prompt_logprobs(outputs)
        if self._generation.request.max_answer_tokens == 0:
            outputs = without_tokens(outputs)
        if sampling_params.structured_outputs is None:
            return outputs
        return self._with_grammar(sampling_params, outputs)

    async def _with_grammar(
        self, sampling_params: SamplingParams, outputs: AsyncGenerator[RequestOutput]
    ) -> AsyncGenerator[RequestOutput]:
        """The engine's outputs, which begin when the grammar has been checked."""
        async with aclosing(outputs):
            sampling_params.structured_outputs = await self._generation.checked_grammar()
            async for output in outputs:
                yield output

    def _verified(self, sampling_params: SamplingParams) -> SamplingParams:
        """A copy, checked and completed as vLLM does it later."""
        processor = self._client.input_processor
        params = sampling_params.clone()
        params.verify(
            processor.model_config,
            processor.speculative_config,
            processor.structured_outputs_config,
            processor.tokenizer,
        )
        params.update_from_generation_config(
            processor.generation_config_fields, processor.renderer.get_eos_token_id()
        )
        params.update_from_tokenizer(processor.renderer.get_tokenizer())
        return params
