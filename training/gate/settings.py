"""How a thought gate is fitted."""

from dataclasses import dataclass

from quietstar_infer.gate import GateConfig
from training.errors import UsageError

FEWEST_DOCUMENTS = 10
HELD_OUT_EVERY = 5
"""One document in this many is held out from the fit, where no others are given for that."""


@dataclass(frozen=True)
class GateSettings:
    """How a thought gate is fitted; raises `UsageError`.

    `budgets`: the thought budgets that it learns, empty = the checkpoint's default. `documents` are
    read at most, each cut to `document_tokens`. `hidden_size`: of the gate. `epochs` of batches of
    `batch_size` positions with AdamW at `learning_rate`, which falls to 0.
    """

    budgets: tuple[int, ...] = ()
    documents: int = 1000
    document_tokens: int = 512
    hidden_size: int = 64
    epochs: int = 40
    batch_size: int = 512
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden_size", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.documents < FEWEST_DOCUMENTS:
            raise UsageError(
                f"documents is {self.documents}, expected {FEWEST_DOCUMENTS} or more: one in "
                f"{HELD_OUT_EVERY} is held out"
            )
        if self.document_tokens < 2:
            raise UsageError(f"document_tokens is {self.document_tokens}, expected 2 or more")
        if self.learning_rate <= 0 or self.weight_decay < 0:
            raise UsageError("learning_rate must be above 0, weight_decay 0 or more")
        if self.budgets:
            self.gate_config(self.budgets)

    def gate_config(self, budgets: tuple[int, ...]) -> GateConfig:
        """The gate's shape; raises `UsageError` for budgets that no gate can have."""
        try:
            return GateConfig(self.hidden_size, tuple(sorted(set(budgets))))
        except ValueError as error:
            raise UsageError(f"a thought gate's {error}") from None
