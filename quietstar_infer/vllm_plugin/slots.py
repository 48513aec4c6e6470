"""What is kept on the device between two passes of a thought, and the compiled operations that
take it there and back.

Shapes: S slots, C columns of a slot, N tokens of the batch, F of them fed by thoughts, G gate
passes, H hidden.
"""

from collections.abc import Sequence

import torch
from vllm.utils.torch_utils import async_tensor_h2d

from quietstar_infer.compiled import CompiledFunction, TensorFunction
from quietstar_infer.gate import GateTensors, fused_gain
from quietstar_infer.vllm_plugin.thought_sampler import example_inputs, unpack


def feed_tokens(
    input_N: torch.Tensor, packed_F8: torch.Tensor, token_SC: torch.Tensor
) -> torch.Tensor:
    """Put what thoughts feed into its places among the batch's input tokens; returns it, (F,)."""
    inputs = unpack(packed_F8)
    token_F = token_SC[inputs.slot, inputs.column]
    input_N[inputs.place] = token_F
    return token_F


def judge_bases(
    hidden_NH: torch.Tensor, packed_G8: torch.Tensor, base_SH: torch.Tensor, *gate: torch.Tensor
) -> torch.Tensor:
    """Keep the base hidden states of gate passes; returns what the thoughts are expected to save,
    (G,) float32. `gate`: `ThoughtGate.tensors`.
    """
    inputs = unpack(packed_G8)
    base_GH = hidden_NH[inputs.place]
    base_SH[inputs.slot] = base_GH
    return fused_gain(base_GH, inputs.column, *gate)


class ThoughtSlots:
    """One slot for each request in mid-thought, on the device.

    `base_SH`: the base hidden state. `token_SC`, with C the largest budget + 2, int32 as the
    model's input: what the thought feeds, START in column 0, then the tokens sampled so far, of a
    given thought all; END is in the last column.

    Slots and not batch rows, because vLLM moves rows about between engine steps.
    """

    def __init__(
        self,
        num_slots: int,
        max_budget: int,
        meta_token_ids: tuple[int, int],
        hidden_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.base_SH = torch.zeros(num_slots, hidden_size, dtype=dtype, device=device)
        self.token_SC = torch.zeros(num_slots, max_budget + 2, dtype=torch.int32, device=device)
        self.token_SC[:, 0], self.token_SC[:, -1] = meta_token_ids
        self.end_column = max_budget + 1
        self._free = list(range(num_slots))
        self._slot_of: dict[str, int] = {}
        # Of slots with a given thought.
        self._num_given: dict[int, int] = {}
        self._feed: TensorFunction = feed_tokens
        self._judge: TensorFunction = judge_bases

    # As the engine runs them.
    @torch.inference_mode()
    def warm_up(self, gate: GateTensors | None) -> None:
        """Compile, once and for any number of rows, what is done in every pass."""
        # Copies made in inference mode would be another kind of tensor.
        with torch.inference_mode(False):
            base_SH, token_SC = self.base_SH.clone(), self.token_SC.clone()
        packed_F8 = example_inputs(token_SC.device)
        examples = [token_SC.new_zeros(2), packed_F8, token_SC]
        self._feed = CompiledFunction(feed_tokens, examples, rows=(0, 1))
        if gate is not None:
            examples = [base_SH.new_zeros(2, base_SH.shape[1]), packed_F8, base_SH, *gate]
            self._judge = CompiledFunction(judge_bases, examples, rows=(0, 1))

    def feed(self, input_N: torch.Tensor, packed_F8: torch.Tensor) -> None:
        """Put what thoughts feed into its places among the batch's input tokens."""
        self._feed(input_N, packed_F8, self.token_SC)

    def judge(
        self, hidden_NH: torch.Tensor, packed_G8: torch.Tensor, gate: GateTensors
    ) -> torch.Tensor:
        """Keep the base hidden states of gate passes, in whose inputs the budgets are the columns;
        returns what the thoughts are expected to save, (G,) float32, in nats.
        """
        return self._judge(hidden_NH, packed_G8, self.base_SH, *gate)

    def __len__(self) -> int:
        """How many requests hold a slot."""
        return len(self._slot_of)

    def acquire(self, request_id: str) -> int:
        """The slot of a request; a free one, if it holds none yet."""
        if request_id not in self._slot_of:
            self._slot_of[request_id] = self._free.pop()
        return self._slot_of[request_id]

    def find(self, request_id: str) -> int:
        """The slot that a request holds; the first one, whatever is in it, if it holds none."""
        return self._slot_of.get(request_id, 0)

    def give(self, request_id: str, thought: Sequence[int]) -> None:
        """Write a given thought into the slot of a request, which holds it until it is released."""
        slot = self.acquire(request_id)
        given = async_tensor_h2d(list(thought), device=self.token_SC.device, dtype=torch.int32)
        self.token_SC[slot, 1 : len(thought) + 1] = given
        self._num_given[slot] = len(thought)

    def num_given(self, slot: int) -> int:
        """How many tokens of a slot's thought are given: all or none."""
        return self._num_given.get(slot, 0)

    def release(self, request_id: str) -> None:
        """Give a request's slot back, if it holds one. Work on the device that still reads the slot
        is ordered before whatever the next holder writes.
        """
        slot = self._slot_of.pop(request_id, None)
        if slot is not None:
            self._num_given.pop(slot, None)
            self._free.append(slot)
