"""Which base models can think: `model_type` decides, not the checkpoint's `architectures`."""

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
    another base model.
    """
    if model_type not in ARCHITECTURES:
        raise CheckpointError(
            f"{where}: model_type is {model_type!r}, the base models that can think are "
            f"{', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[str(model_type)]
