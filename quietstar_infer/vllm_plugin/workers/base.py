"""What every platform's worker has in common: what the server can ask, by `collective_rpc`."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.model_executor.model_loader.weight_checksum import compute_tensor_digests
from vllm.v1.sample.sampler import Sampler

from quietstar_infer.checkpoint import checkpoint_digest
from quietstar_infer.plugin import installed_vllm_version
from quietstar_infer.vllm_plugin.options import thinking_setup
from quietstar_infer.vllm_plugin.thought_state import ThoughtState


class ThinkingWorkerMixin:
    """The methods beside a worker's own. All tensor-parallel ranks give the same answers."""

    # A MultiStepMixin; the workers that this is mixed into each declare a type of their own.
    model_runner: Any
    vllm_config: VllmConfig

    @property
    def _thought_state(self) -> ThoughtState:
        state: ThoughtState = self.model_runner.thought_state
        return state

    def compile_or_warm_up_model(self) -> Any:
        """vLLM's own, after what it leaves to the first request that needs it is compiled."""
        self._thought_state.warm_up()
        self._compile_ranks()
        return super().compile_or_warm_up_model()  # type: ignore[misc]

    @torch.inference_mode()
    def _compile_ranks(self) -> None:
        """The ranks of tokens beside log-probabilities, which vLLM compiles for the first request
        that asks for these: with cold caches all others would wait for many seconds, too. Can go
        when vLLM's own warm-up does it.
        """
        vocab_size = self.model_runner.model_config.get_vocab_size()
        logprobs_NV = torch.zeros(2, vocab_size, device=self.model_runner.device)
        token_N = torch.zeros(2, dtype=torch.int64, device=self.model_runner.device)
        Sampler.gather_logprobs(logprobs_NV, 1, token_N)

    def take_thoughts(self, key: str) -> dict[str, list[dict[str, Any]]]:
        """Remove and return the logged thoughts under a record key; see `ThoughtLog.take`."""
        return self._thought_state.log.take(key)

    def drop_thoughts(self, key: str) -> None:
        """Remove the logged thoughts under a record key."""
        self._thought_state.log.drop(key)

    def identity(self) -> dict[str, Any]:
        """What must be the same in all replicas. Takes seconds for a large model."""
        weights = compute_tensor_digests(self.model_runner.get_model())
        return {**self._origin(), "weights": weights}

    def rank_identity(self) -> dict[str, Any]:
        """What must be the same in all ranks, each of which has another part of the weights."""
        checkpoint = checkpoint_digest(Path(self.vllm_config.model_config.model))
        return {**self._origin(), "checkpoint": checkpoint}

    def _origin(self) -> dict[str, Any]:
        return {
            "quietstar": version("quietstar"),
            "vllm": installed_vllm_version(),
            "setup": asdict(thinking_setup(self.vllm_config)),
        }

    def thought_usage(self) -> dict[str, int]:
        """What thoughts hold at this moment: slots on the device, logged thought tokens."""
        return {
            "slots": len(self._thought_state.slots),
            "recorded_tokens": self._thought_state.log.num_tokens,
        }

    def thought_metrics(self) -> dict[str, Any]:
        """What thinking has cost since the engine started (see `ThoughtCounts`), and
        `thought_usage`.
        """
        counts: dict[str, Any] = self._thought_state.metrics.counts()._asdict()
        return counts | self.thought_usage()
