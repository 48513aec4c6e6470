"""What a training step keeps for its backward pass, and what it computes again there.

| `Recompute` | computed again             | kept per path token and layer (floats)    |
|-------------|----------------------------|-------------------------------------------|
| `nothing`   | nothing                    | all activations                           |
| `mlp`       | feed-forward and norms     | residual stream, attention's in- and output |
| `layer`     | every layer as a whole     | residual stream                           |

The feed-forward part of a layer keeps more than all the rest of it, and takes two matrix products
to compute again, since the third only reads what the backward pass needs.
"""

from functools import partial

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from training.recipe import Recompute

CHEAP = ("mlp", "input_layernorm", "post_attention_layernorm")
"""What the decoder layers of Mistral, Llama, Qwen2, Qwen3 and their relatives call these parts."""


ACTIVATIONS = {"cpu": 2**19, "cuda": 2**27}
"""Of one linear layer in one pass."""
FEWEST_TOKENS = 256


def recompute(trunk: PreTrainedModel, what: Recompute) -> None:
    """Let a trunk's layers compute activations again instead of keeping them."""
    if what == "layer":
        trunk.gradient_checkpointing_enable()
    if what == "mlp":
        for name, module in trunk.base_model.named_modules():
            if name.rpartition(".")[2] in CHEAP:
                # No dropout in them, so no state of a random number generator to restore.
                again = partial(
                    checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False
                )
                module.forward = again


def tokens_per_pass(trunk: PreTrainedModel) -> int:
    """How many path tokens a trunk should read at a time: enough for its matrix products to be
    efficient, few enough for what a layer computes again to stay small.
    """
    intermediate: int = trunk.config.get_text_config().intermediate_size
    return max(FEWEST_TOKENS, ACTIVATIONS[trunk.device.type] // intermediate)
