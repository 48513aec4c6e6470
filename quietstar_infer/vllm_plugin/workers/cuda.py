"""The worker and the model runner that think on CUDA."""

from vllm.v1.worker.gpu_model_runner import GPUModelRunner
from vllm.v1.worker.gpu_worker import Worker

from quietstar_infer.vllm_plugin.multi_step import MultiStepMixin
from quietstar_infer.vllm_plugin.workers.base import ThinkingWorkerMixin


class ThinkingCUDARunner(MultiStepMixin, GPUModelRunner):
    """vLLM's CUDA runner with thoughts."""


class ThinkingCUDAWorker(ThinkingWorkerMixin, Worker):
    """vLLM's CUDA worker with the runner above."""

    def _make_model_runner(self) -> ThinkingCUDARunner:
        assert self.device is not None
        return ThinkingCUDARunner(self.vllm_config, self.device)
