"""Which trunks can think: `model_type` decides, whatever a checkpoint's `architectures` says."""

from quietstar_infer.errors import CheckpointError

ARCHITECTURES = {
    "llama": "QuietStarLlamaForCausalLM",
    "mistral": "QuietStarMistralForCausalLM",
    "qwen2": "QuietStarQwen2ForCausalLM",
    "qwen3": "QuietStarQwen3ForCausalLM",
}
MODEL_MODULE = "quietstar_infer.vllm_plugin.model"


def thinking_architecture(model_type: object, where: str) -> str:
    """The name under which vLLM knows the thinking model class; raises `CheckpointError` for
    another trunk.
    """
    if model_type not in ARCHITECTURES:
        raise CheckpointError(
            f"{where}: model_type is {model_type!r}, the trunks that can think are "
            f"{', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[str(model_type)]
