"""What is measured, and how often."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from benchmarks.engine.shapes import LARGER, Shape

MS = 1e3
MeasureName = Literal[
    "pass", "official", "company", "arrival", "adaptive", "speculative", "context"
]
NAMES: tuple[MeasureName, ...] = get_args(MeasureName)
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often: the checkpoint's ratios `repeats` times, the larger model's
    `larger_repeats` times.
    """

    checkpoint: Path
    larger: Shape = LARGER
    only: tuple[MeasureName, ...] = NAMES
    batches: tuple[int, ...] = (1, 4, 16, 64)
    budget: int = 8
    repeats: int = 7
    larger_repeats: int = 3
    tokens: int = 16
    larger_tokens: int = 6
    # The official way takes many seconds per token on a CPU.
    official_repeats: int = 3
    official_budget: int = 5
    official_batch: int = 8
    official_context: int = 512
    mixed_batch: int = 8
    mixed_budget: int = 16
    arrivals: int = 24
    arrival_batch: int = 16
    adaptive_batches: tuple[int, ...] = (1, 4, 16)
    adaptive_groups: int = 4
    # The shortest text, in tokens.
    adaptive_tokens: int = 40
    # Lines of JSON with a "text"; None = held-out problems of the demonstration, all different.
    documents: Path | None = None
    # Visible tokens of other texts that both engines answer before drafts are measured, at each
    # size of batch: after so many, a token's time no longer falls (docs/performance.md).
    warm_up_tokens: int = 2500
    # The fewest documents in a repetition.
    drafted_documents: int = 4
    answers: int = 16
    larger_drafted_batches: tuple[int, ...] = (1, 4)
    contexts: tuple[int, int] = (128, 2048)
    context_batch: int = 4
    max_thought_burst: int | None = None

    @property
    def thinking(self) -> dict[str, Any]:
        """Options of the thinking engines."""
        return {
            "max_thought_budget": max(self.mixed_budget, self.budget),
            "max_thought_burst": self.max_thought_burst,
            # One pass for each thought token, so that passes can be compared.
            "speculative_thoughts": 0,
        }
