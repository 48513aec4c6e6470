"""The worker and the runner that think on CUDA."""

from vllm.v1.worker.gpu_model_runner import GPUModelRunner
from vllm.v1.worker.gpu_worker import Worker

from quietstar_infer.vllm_plugin.runner import ThinkingRunnerMixin
from quietstar_infer.vllm_plugin.workers.base import ThinkingWorkerMixin


class ThinkingCUDARunner(ThinkingRunnerMixin, GPUModelRunner):
    """vLLM's CUDA runner, thinking."""


class ThinkingCUDAWorker(ThinkingWorkerMixin, Worker):
    """vLLM's CUDA worker with the runner above."""

    def _make_model_runner(self) -> ThinkingCUDARunner:
        assert self.device is not None
        return ThinkingCUDARunner(self.vllm_config, self.device)
