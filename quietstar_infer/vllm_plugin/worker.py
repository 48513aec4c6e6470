"""What the server can ask a worker, through `collective_rpc`."""

from typing import Any

from quietstar_infer.vllm_plugin.runner import ThinkingRunnerMixin


class ThinkingWorkerMixin:
    """The methods beside a worker's own. Every tensor-parallel rank answers, with the same."""

    model_runner: ThinkingRunnerMixin

    def take_thoughts(self, key: str) -> dict[str, list[dict[str, Any]]]:
        """Remove and return what the requests under a record key thought; see
        `ThoughtRecords.take`.
        """
        return self.model_runner.thought_records.take(key)

    def drop_thoughts(self, key: str) -> None:
        """Forget what the requests under a record key thought."""
        self.model_runner.thought_records.drop(key)

    def thought_usage(self) -> dict[str, int]:
        """What thoughts hold at this moment: slots on the device, recorded tokens."""
        return {
            "slots": len(self.model_runner.thought_memory),
            "recorded_tokens": self.model_runner.thought_records.num_tokens,
        }
