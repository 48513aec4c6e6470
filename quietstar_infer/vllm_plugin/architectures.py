"""Which base models can think: `model_type` decides, not the checkpoint's `architectures`."""

from collections.abc import Mapping
from typing import Any

from quietstar_infer.errors import CheckpointError

ARCHITECTURES = {
    "llama": "QuietStarLlamaForCausalLM",
    "mistral": "QuietStarMistralForCausalLM",
    "qwen2": "QuietStarQwen2ForCausalLM",
    "qwen3": "QuietStarQwen3ForCausalLM",
}
MODEL_MODULE = "quietstar_infer.vllm_plugin.model"


def thinking_architecture(config: Mapping[str, Any], where: str) -> str:
    """The name under which vLLM knows the thinking model class of a checkpoint's config.json;
    raises `CheckpointError` for another base model.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise CheckpointError(
            f"{where}: model_type is {model_type!r}, the base models that can think are "
            f"{', '.join(ARCHITECTURES)}"
        )
    if (activation := config.get("hidden_act", "silu")) != "silu":
        raise CheckpointError(
            f"{where}: hidden_act is {activation!r}, these base models have silu only"
        )
    return ARCHITECTURES[model_type]
