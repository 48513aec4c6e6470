"""What a thought leaves on the device between two of its passes."""

import torch


class ThoughtMemory:
    """One slot per thinking request: the base hidden state, (S, H), and what the thought feeds,
    (S, B + 2), int32 as the trunk's input: START in column 0, then its tokens so far; END is in the
    last one.

    Slots and not batch rows, because vLLM moves rows about between steps.
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

    def __len__(self) -> int:
        """How many requests hold a slot."""
        return len(self._slot_of)

    def acquire(self, request_id: str) -> int:
        """The slot of a request, a free one if it has none yet."""
        if request_id not in self._slot_of:
            self._slot_of[request_id] = self._free.pop()
        return self._slot_of[request_id]

    def release(self, request_id: str) -> None:
        """Give a request's slot back, if it holds one. Work on the device that still reads it is
        ordered before whatever the next holder writes.
        """
        slot = self._slot_of.pop(request_id, None)
        if slot is not None:
            self._free.append(slot)
