"""Plain passes: every row of the batch feeds one thought token and chooses the next.

Such are all passes inside a burst but its first and its last. From one to the next, positions and
sequence lengths go up by one, and what was chosen is fed, on the device: of what vLLM prepares for
a batch, only the attention's metadata have to be made anew.

Shapes: R rows of the batch, P passes, V vocabulary, H hidden.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from vllm.config import CUDAGraphMode
from vllm.forward_context import BatchDescriptor, set_forward_context
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from quietstar_infer.sampling import choose_thought_token, gumbel_noise

if TYPE_CHECKING:
    _Runner = GPUModelRunner
else:
    _Runner = object

# Numbers of noise that are made at a time, 4 MiB of them.
NOISE_CHUNK = 1 << 20


class ThoughtChoice:
    """Chooses the thought tokens of R rows in P passes.

    Where all of it is small, the noise of several passes is made at once: it takes two dozen
    operations, which cost the same for few numbers and for many.
    """

    def __init__(self, temperature_R: torch.Tensor, key_PR2: torch.Tensor) -> None:
        self._temperature_R = temperature_R
        self._key_PR2 = key_PR2
        self._noise_CRV: torch.Tensor | None = None
        self._pass = 0

    def next(self, logits_RV: torch.Tensor) -> torch.Tensor:
        """Token ids, (R,), of the next pass, from its logits."""
        chunk = max(1, NOISE_CHUNK // logits_RV.numel())
        index = self._pass % chunk
        if index == 0:
            key_CR2 = self._key_PR2[self._pass : self._pass + chunk]
            noise_NV = gumbel_noise(key_CR2.flatten(0, 1), logits_RV.shape[1])
            self._noise_CRV = noise_NV.view(len(key_CR2), *logits_RV.shape)
        assert self._noise_CRV is not None, "made with the chunk's first pass"
        self._pass += 1
        return choose_thought_token(logits_RV, self._temperature_R, self._noise_CRV[index])


class GreedyChoice:
    """The same for rows at temperature 0, which need no noise."""

    def next(self, logits_RV: torch.Tensor) -> torch.Tensor:
        """Token ids, (R,), of the next pass, from its logits."""
        return logits_RV.argmax(dim=-1)


class Graph(NamedTuple):
    """As what CUDA graph a pass runs, if as one."""

    mode: CUDAGraphMode
    batch: BatchDescriptor
    tokens_across_ranks: torch.Tensor | None


class PlainPassesMixin(_Runner):
    """The runner's part of it: the model's inputs and the model."""

    def _begin_plain_passes(self, position_R: np.ndarray, token_R: torch.Tensor) -> Graph:
        """Prepare the pass that feeds these tokens at these positions."""
        rows = len(position_R)
        with self.synchronize_input_prep():
            self.input_batch.block_table.commit_block_table(rows)
            self.query_start_loc.np[: rows + 1] = self.arange_np[: rows + 1]
            self.query_start_loc.np[rows + 1 :].fill(rows)
            self.query_start_loc.copy_to_gpu()
            self.optimistic_seq_lens_cpu[:rows] = torch.from_numpy(position_R + 1)
            self.optimistic_seq_lens_cpu[rows:].fill_(0)
            self.positions[:rows] = async_tensor_h2d(position_R, device=self.device)
            self.seq_lens[:rows] = self.positions[:rows] + 1
            self.seq_lens[rows:].fill_(0)
            self.input_ids.gpu[:rows] = token_R
        mode, batch, _, tokens_across_ranks, _ = self._determine_batch_execution_and_padding(
            num_tokens=rows,
            num_reqs=rows,
            num_scheduled_tokens_np=np.ones(rows, dtype=np.int32),
            max_num_scheduled_tokens=1,
        )
        return Graph(mode, batch, tokens_across_ranks)

    def _advance_plain_passes(self, token_R: torch.Tensor) -> None:
        """Prepare the pass after the one that has run."""
        rows = len(token_R)
        self.optimistic_seq_lens_cpu[:rows] += 1
        self.positions[:rows] += 1
        self.seq_lens[:rows] += 1
        self.input_ids.gpu[:rows] = token_R

    def _plain_forward(self, rows: int, graph: Graph) -> torch.Tensor:
        """The trunk's hidden states of the prepared pass, (R, H), as vLLM's `execute_model` has it
        run.
        """
        padded = graph.batch.num_tokens
        is_full = graph.mode == CUDAGraphMode.FULL
        self.input_batch.block_table.compute_slot_mapping(
            rows, self.query_start_loc.gpu[: rows + 1], self.positions[:rows]
        )
        by_group, by_layer = self._get_slot_mappings(
            num_tokens_padded=padded,
            num_reqs_padded=graph.batch.num_reqs or rows,
            num_tokens_unpadded=rows,
        )
        metadata, _ = self._build_attention_metadata(
            num_tokens=rows,
            num_tokens_padded=padded if is_full else None,
            num_reqs=rows,
            num_reqs_padded=(graph.batch.num_reqs or rows) if is_full else None,
            max_query_len=1,
            slot_mappings=by_group,
        )
        with set_forward_context(
            metadata,
            self.vllm_config,
            num_tokens=padded,
            num_tokens_across_dp=graph.tokens_across_ranks,
            cudagraph_runtime_mode=graph.mode,
            batch_descriptor=graph.batch,
            slot_mapping=by_layer,
            is_padding=self._prepare_padding_mask(rows, padded),
        ):
            hidden_NH: torch.Tensor = self._model_forward(
                input_ids=self.input_ids.gpu[:padded], positions=self.positions[:padded]
            )
        return hidden_NH[:rows]
