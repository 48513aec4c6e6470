"""What the tests of the engine's benchmarks share."""

from benchmarks.engine.measures.measured import Measured

MEASURED = Measured(
    "pass", "m", "batch 1", ("thought pass", "stock step"), "ms", 3.0, 4.0, [0.7, 0.75, 0.9], 0.8
)


def ignore(message: str) -> None:
    """Progress that nobody watches."""
