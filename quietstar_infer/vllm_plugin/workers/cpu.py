"""The worker and the model runner that think on the CPU."""

# First, as vLLM's own CPU worker demands: it replaces functions that other modules import by name.
from vllm.v1.worker.cpu_worker import CPUWorker  # isort: skip
from typing import Any

from torch._dynamo.aot_compile_types import BundledAOTAutogradSerializableCallable
from vllm.distributed import get_pp_group
from vllm.v1.worker.cpu_model_runner import CPUModelRunner

from quietstar_infer.vllm_plugin.multi_step import MultiStepMixin
from quietstar_infer.vllm_plugin.workers.base import ThinkingWorkerMixin

# What vLLM has loaded from its cache of compiled models it asks for `finalize_loading`. Those of
# Inductor lack it, so that on the CPU it would compile anew at every start. Nothing is left to be
# done for them. Can go when vLLM asks only its own.
BundledAOTAutogradSerializableCallable.finalize_loading = (  # type: ignore[attr-defined]
    lambda _self, _config: None
)


class ThinkingCPURunner(MultiStepMixin, CPUModelRunner):
    """vLLM's CPU runner with thoughts."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        super().load_model(*args, **kwargs)
        if not get_pp_group().is_first_rank:
            # vLLM makes room for what the stage before sends in a warm-up, which the CPU worker
            # skips where nothing is compiled. Can go when it does not need one.
            model: Any = self.get_model()
            self.intermediate_tensors = model.make_empty_intermediate_tensors(
                batch_size=self.max_num_tokens,
                dtype=self.model_config.dtype,
                device=self.device,
            )


class ThinkingCPUWorker(ThinkingWorkerMixin, CPUWorker):
    """vLLM's CPU worker with the runner above."""

    def init_device(self) -> None:
        # vLLM builds its own runner in here. Can go when the CPU worker uses _make_model_runner, as
        # the CUDA one does.
        super().init_device()  # type: ignore[no-untyped-call]
        assert self.device is not None
        self.model_runner = ThinkingCPURunner(self.vllm_config, self.device)
