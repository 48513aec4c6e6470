"""Plain passes: every row of the batch feeds one thought token and chooses the next.

Such are all passes inside a burst but its first and its last. From one to the next, positions and
sequence lengths go up by one, and what was chosen is fed, on the device: of what vLLM prepares for
a batch, only the attention's metadata have to be made anew.

Shapes: R rows of the batch, H hidden.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from vllm.config import CUDAGraphMode
from vllm.forward_context import BatchDescriptor, set_forward_context
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

if TYPE_CHECKING:
    _Runner = GPUModelRunner
else:
    _Runner = object


class Graph(NamedTuple):
    """As what CUDA graph a pass runs, if as one."""

    mode: CUDAGraphMode
    batch: BatchDescriptor
    tokens_across_ranks: torch.Tensor | None


class PlainPassesMixin(_Runner):
    """The runner's part of it: the model's inputs and the model."""

    def _begin_plain_passes(
        self, position_R: npt.NDArray[np.int64], token_R: torch.Tensor
    ) -> Graph:
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
