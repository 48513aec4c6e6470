"""vLLM's dense decoders with a mixing head and meta-token embeddings."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.mistral import MistralForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

from quietstar_infer.checkpoint import (
    EMBED_TOKENS,
    END_EMBEDDING,
    GATE_PREFIX,
    START_EMBEDDING,
    Shape,
    check_tensors,
    load_gate,
    meta_embeddings,
)
from quietstar_infer.errors import CheckpointError
from quietstar_infer.gate import ThoughtGate, prediction_entropy
from quietstar_infer.mixing import MixingHead, mix
from quietstar_infer.sampling import mask_meta_tokens
from quietstar_infer.vllm_plugin.options import thinking_setup

_CHECKED = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
NamedTensors = Iterable[tuple[str, torch.Tensor]]


class QuietStarMixin(nn.Module):
    """Turns a model of vLLM's, the next base class, into the base model of one that thinks."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.quiet_star = thinking_setup(vllm_config).config
        self._source = str(vllm_config.model_config.model)
        self._hidden_size: int = vllm_config.model_config.get_hidden_size()
        # One head in a list: the official tensor names are talk_head.0.*
        self.talk_head = nn.ModuleList([MixingHead(self._hidden_size)])
        gate = self.quiet_star.gate
        self.thought_gate = None if gate is None else ThoughtGate(self._hidden_size, gate)

    def mix_thoughts(
        self, base_NH: torch.Tensor, thought_NH: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mixed hidden states, (N, H), and the mixing weights, (N, 1)."""
        head = self.talk_head[0]
        assert isinstance(head, MixingHead)
        weight_N1 = head.weight(base_NH, thought_NH)
        return mix(base_NH, thought_NH, weight_N1), weight_N1

    def expected_gain(
        self, base_NH: torch.Tensor, logits_NV: torch.Tensor, budget_N: torch.Tensor
    ) -> torch.Tensor:
        """What thoughts of these budgets (int64) are expected to save, (N,) float32, in nats: by
        the checkpoint's gate, else by the entropy of the base prediction, whose logits are given.
        """
        if self.thought_gate is None:
            return prediction_entropy(logits_NV)
        return self.thought_gate.expected_gain(base_NH, budget_N)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """vLLM's logits, (N, V), with START and END at -inf: they are never sampled, neither as
        visible nor as thought tokens, nor among the log-probabilities.
        """
        logits: torch.Tensor | None = super().compute_logits(hidden_states)  # type: ignore[misc]
        return None if logits is None else mask_meta_tokens(logits, self.quiet_star.meta_token_ids)

    def load_weights(self, weights: NamedTensors) -> set[str]:
        """Load a checkpoint in the official layout; raises `CheckpointError` naming the tensors
        that it lacks, or the one that has another shape than the model, or numbers that are not
        finite.
        """
        watch = _Watch(self._source)
        tensors = watch.named(self._with_meta_embeddings(_finite(weights, self._source)))
        try:
            loaded: set[str] = super().load_weights(tensors)  # type: ignore[misc]
        except (AssertionError, RuntimeError, ValueError, KeyError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(watch.misfit(error)) from error
        return loaded | self._load_gate()

    def _load_gate(self) -> set[str]:
        """From the checkpoint's own file: where there is an index of safetensors files, vLLM reads
        none that it does not name.
        """
        if self.thought_gate is None:
            return set()
        gate = load_gate(Path(self._source), self.quiet_star)
        assert gate is not None, "the configuration has one"
        tensors = {GATE_PREFIX + name: tensor for name, tensor in gate.state_dict().items()}
        for _ in _finite(tensors.items(), self._source):
            pass
        self.thought_gate.load_state_dict(gate.state_dict())
        return set(tensors)

    def _with_meta_embeddings(self, weights: NamedTensors) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors, with START's and END's vectors put into the embedding table; before vLLM
        loads the table, because it splits it over tensor-parallel ranks.
        """
        held: dict[str, torch.Tensor] = {}
        shapes: dict[str, Shape] = {}
        for name, tensor in weights:
            if name.startswith(GATE_PREFIX):
                continue
            shapes[name] = tuple(tensor.shape)
            if name in (EMBED_TOKENS, START_EMBEDDING, END_EMBEDDING):
                held[name] = tensor
            else:
                yield name, tensor
        check_tensors(shapes, self._hidden_size, self._source)
        table_VH = held[EMBED_TOKENS].clone()
        start_H, end_H = meta_embeddings(
            self.quiet_star, table_VH, held[START_EMBEDDING], held[END_EMBEDDING]
        )
        table_VH[self.quiet_star.start_token_id], table_VH[self.quiet_star.end_token_id] = (
            start_H,
            end_H,
        )
        yield EMBED_TOKENS, table_VH


def _finite(weights: NamedTensors, source: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors; raises `CheckpointError` for one with NaN or infinities."""
    for name, tensor in weights:
        # The small formats of quantised checkpoints have no such check.
        if tensor.dtype in _CHECKED and not tensor.isfinite().all():
            raise CheckpointError(
                f"{source}: tensor {name} has numbers that are not finite (NaN or infinity)"
            )
        yield name, tensor


class _Watch:
    """Follows the tensors of a checkpoint on their way into the model: vLLM's errors do not name
    the one that they are about."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._last = "none"

    def named(self, weights: NamedTensors) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors, as they are."""
        for name, tensor in weights:
            self._last = f"{name} of shape {tuple(tensor.shape)}"
            yield name, tensor

    def misfit(self, error: Exception) -> str:
        """What to say about an error of vLLM's while it loaded a tensor."""
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return (
            f"{self._source}: tensor {self._last} does not fit the model that config.json "
            f"describes: {reason}"
        )


class QuietStarLlamaForCausalLM(QuietStarMixin, LlamaForCausalLM):
    """Llama with thoughts."""


class QuietStarMistralForCausalLM(QuietStarMixin, MistralForCausalLM):
    """Mistral, the paper's base model, with thoughts."""


class QuietStarQwen2ForCausalLM(QuietStarMixin, Qwen2ForCausalLM):
    """Qwen2 with thoughts."""


class QuietStarQwen3ForCausalLM(QuietStarMixin, Qwen3ForCausalLM):
    """Qwen3 with thoughts."""
