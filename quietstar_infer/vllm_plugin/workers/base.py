"""What the server can ask a worker, through `collective_rpc`."""

from typing import Any


class ThinkingWorkerMixin:
    """The methods beside a worker's own. Every tensor-parallel rank answers, with the same."""

    # A ThinkingRunnerMixin; the workers it is mixed into each declare a type of their own.
    model_runner: Any

    def compile_or_warm_up_model(self) -> Any:
        """vLLM's own, and that of choosing thought tokens."""
        self.model_runner.warm_up_thoughts()
        return super().compile_or_warm_up_model()  # type: ignore[misc]

    def take_thoughts(self, key: str) -> dict[str, list[dict[str, Any]]]:
        """Remove and return what the requests under a record key thought; see
        `ThoughtRecords.take`.
        """
        taken: dict[str, list[dict[str, Any]]] = self.model_runner.thought_records.take(key)
        return taken

    def drop_thoughts(self, key: str) -> None:
        """Forget what the requests under a record key thought."""
        self.model_runner.thought_records.drop(key)

    def thought_usage(self) -> dict[str, int]:
        """What thoughts hold at this moment: slots on the device, recorded tokens."""
        return {
            "slots": len(self.model_runner.thought_memory),
            "recorded_tokens": self.model_runner.thought_records.num_tokens,
        }

    def thought_metrics(self) -> dict[str, Any]:
        """What thinking has cost and come to since the engine started (see `ThoughtCounts`), and
        `thought_usage`.
        """
        counts: dict[str, Any] = self.model_runner.thought_metrics.counts()._asdict()
        return counts | self.thought_usage()
