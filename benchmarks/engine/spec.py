"""Which engine a process is to start."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class EngineSpec:
    """`arguments` are vLLM's engine arguments. `thinking` are the fields of `ThinkingOptions`; None
    is stock vLLM, without plugins.
    """

    arguments: dict[str, Any]
    thinking: dict[str, Any] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of the process, on top of this one's."""
        return self.environment | ({"VLLM_PLUGINS": ""} if self.thinking is None else {})
