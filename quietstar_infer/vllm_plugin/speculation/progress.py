"""What the scheduler learns of speculative thoughts with a pass's output."""

from typing import NamedTuple

from vllm.v1.outputs import ModelRunnerOutput


class ThoughtProgress(NamedTuple):
    """By request: how many of the drafts that it fed were right; and, for each draft that there is
    for its next pass, how likely it and all before it are right.
    """

    accepted: dict[str, int]
    chances: dict[str, list[float]]


def attach_progress(output: ModelRunnerOutput, progress: ThoughtProgress) -> None:
    """Report progress with a pass's output."""
    output.thought_progress = progress  # type: ignore[attr-defined]


def attached_progress(output: ModelRunnerOutput) -> ThoughtProgress | None:
    """The inverse of `attach_progress`; None where nothing was drafted."""
    return getattr(output, "thought_progress", None)
