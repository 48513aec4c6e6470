"""What the scheduler learns of speculative thoughts with an engine step's output."""

from typing import NamedTuple

from vllm.v1.outputs import ModelRunnerOutput


class ThoughtProgress(NamedTuple):
    """`reached`: by request, the phase that it has got to, as if each of its tokens had had a pass
    of its own; its budget where the thought has ended. `num_passes` and `num_tokens`: what the
    engine step has run.
    """

    reached: dict[str, int]
    num_passes: int
    num_tokens: int


def attach_progress(output: ModelRunnerOutput, progress: ThoughtProgress) -> None:
    """Report progress with an engine step's output."""
    output.thought_progress = progress  # type: ignore[attr-defined]


def attached_progress(output: ModelRunnerOutput) -> ThoughtProgress | None:
    """The inverse of `attach_progress`; None where nothing was drafted."""
    return getattr(output, "thought_progress", None)
