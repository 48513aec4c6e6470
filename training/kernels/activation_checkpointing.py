"""What a training step keeps for its backward pass, and what it computes again there.

| `Recompute` | computed again             | kept per path token and layer (floats)    |
|-------------|----------------------------|-------------------------------------------|
| `nothing`   | nothing                    | all activations                           |
| `mlp`       | feed-forward and norms     | residual stream, attention's in- and output |
| `layer`     | every layer as a whole     | residual stream                           |

The feed-forward part of a layer keeps more than all the rest of it, and takes two matrix products
to compute again, since the third only reads what the backward pass needs.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from training.trainer.recipe import Recompute

MLP = "mlp"
NORM_BEFORE = "post_attention_layernorm"
CHEAP = ("input_layernorm", "norm")
"""What Mistral, Llama, Qwen2, Qwen3 and their relatives call these parts."""


ACTIVATIONS = {"cpu": 2**19, "cuda": 2**27}
"""Of one linear layer in one pass."""
FEWEST_TOKENS = 256


def recompute(trunk: PreTrainedModel, what: Recompute) -> None:
    """Let a trunk's layers compute activations again instead of keeping them."""
    if what == "layer":
        trunk.gradient_checkpointing_enable()
    if what == "mlp":
        modules = dict(trunk.base_model.named_modules())
        for name, module in modules.items():
            layer, _, part = name.rpartition(".")
            mlp = modules.get(f"{layer}.{MLP}")
            if part == NORM_BEFORE and mlp is not None:
                _NormedMlp(module, mlp)
            elif part in CHEAP:
                module.forward = _again(module.forward)


def _again(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    # No dropout in it, so no state of a random number generator to restore.
    return partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)


class _NormedMlp:
    """Computes a feed-forward part again together with the norm before it, whose output then need
    not be kept; each by itself where a layer has something between the two.
    """

    def __init__(self, norm: nn.Module, mlp: nn.Module) -> None:
        self._norm, self._mlp = norm.forward, mlp.forward
        self._seen: tuple[Tensor, Tensor] | None = None
        norm.forward, mlp.forward = self.norm, self.mlp

    def norm(self, hidden: Tensor) -> Tensor:
        """The norm; remembers of what."""
        normed = _again(self._norm)(hidden)
        self._seen = hidden, normed
        return normed

    def mlp(self, normed: Tensor) -> Tensor:
        """The feed-forward part of what was normed last."""
        seen, self._seen = self._seen, None
        if seen is not None and seen[1] is normed:
            return _again(self._both)(seen[0])
        return _again(self._mlp)(normed)

    def _both(self, hidden: Tensor) -> Tensor:
        mlp: Tensor = self._mlp(self._norm(hidden))
        return mlp


def tokens_per_pass(trunk: PreTrainedModel) -> int:
    """How many path tokens a trunk should read at a time: enough for its matrix products to be
    efficient, few enough for what a layer computes again to stay small.
    """
    intermediate: int = trunk.config.get_text_config().intermediate_size
    return max(FEWEST_TOKENS, ACTIVATIONS[trunk.device.type] // intermediate)
