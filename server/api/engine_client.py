"""The engine's client as one request in flight uses it.

vLLM's serving classes know nothing of thoughts. They call `generate` once per prompt, in order,
before they begin a response: here sampling parameters become those of a thinking request.
"""

from collections.abc import AsyncGenerator
from typing import Any

from server.api.generation import Generation
from server.api.scoring import with_params
from server.api.service import Service
from server.vllm_api import AsyncLLM, EngineInput, RequestOutput, SamplingParams


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
        self._verify(sampling_params)
        if sampling_params.prompt_logprobs is not None and params.budget > 0:
            return self._scorer.generate(
                prompt, sampling_params, params, scoring_usage_key, request_id, options
            )
        sampling_params.extra_args = with_params(sampling_params, params)
        return self._client.generate(prompt, sampling_params, request_id, **options)

    def _verify(self, sampling_params: SamplingParams) -> None:
        processor = self._client.input_processor
        sampling_params.clone().verify(
            processor.model_config,
            processor.speculative_config,
            processor.structured_outputs_config,
            processor.tokenizer,
        )
