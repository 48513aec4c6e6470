"""Activation checkpointing: what a step keeps for its backward pass, and what it recomputes.

| `Recompute` | recomputed in the backward pass | kept per path token and layer (floats)      |
|-------------|---------------------------------|---------------------------------------------|
| `nothing`   | nothing                         | all activations                             |
| `mlp`       | feed-forward parts and norms    | residual stream, attention's in- and output |
| `layer`     | every layer as a whole          | residual stream                             |

The feed-forward part of a layer keeps more than all the rest of it and takes two matrix products to
recompute, since the backward pass does not need the output of the third.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from training.config import Recompute

# What Mistral, Llama, Qwen2, Qwen3 and their relatives call these parts.
_MLP = "mlp"
_NORM_BEFORE_MLP = "post_attention_layernorm"
_OTHER_NORMS = ("input_layernorm", "norm")

PASS_ACTIVATIONS = {"cpu": 2**19, "cuda": 2**27}
"""Activations of one linear layer in one pass."""
FEWEST_TOKENS = 256


def checkpoint_activations(base_model: PreTrainedModel, what: Recompute) -> None:
    """Let a base model's layers recompute activations instead of keeping them, in place."""
    if what == "layer":
        base_model.gradient_checkpointing_enable()
    if what == "mlp":
        modules = dict(base_model.base_model.named_modules())
        for name, module in modules.items():
            layer, _, part = name.rpartition(".")
            mlp = modules.get(f"{layer}.{_MLP}")
            if part == _NORM_BEFORE_MLP and mlp is not None:
                _NormedMlp(module, mlp)
            elif part in _OTHER_NORMS:
                module.forward = _checkpointed(module.forward)


def _checkpointed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    # There is no dropout in it, so no state of a random number generator to restore.
    return partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)


class _NormedMlp:
    """Recomputes a feed-forward part together with the norm before it, whose output then need not
    be kept; each by itself where a layer has something between the two.
    """

    def __init__(self, norm: nn.Module, mlp: nn.Module) -> None:
        self._norm, self._mlp = norm.forward, mlp.forward
        self._last: tuple[Tensor, Tensor] | None = None
        norm.forward, mlp.forward = self.norm, self.mlp

    def norm(self, hidden: Tensor) -> Tensor:
        """The norm; remembers its input and output."""
        normed = _checkpointed(self._norm)(hidden)
        self._last = hidden, normed
        return normed

    def mlp(self, normed: Tensor) -> Tensor:
        """The feed-forward part, together with the norm if its input is the norm's output."""
        last, self._last = self._last, None
        if last is not None and last[1] is normed:
            return _checkpointed(self._both)(last[0])
        return _checkpointed(self._mlp)(normed)

    def _both(self, hidden: Tensor) -> Tensor:
        mlp: Tensor = self._mlp(self._norm(hidden))
        return mlp


def tokens_per_pass(base_model: PreTrainedModel) -> int:
    """How many path tokens a base model should process per pass: enough for efficient matrix
    products, few enough for the recomputed activations of a layer to stay small.
    """
    intermediate: int = base_model.config.get_text_config().intermediate_size
    return max(FEWEST_TOKENS, PASS_ACTIVATIONS[base_model.device.type] // intermediate)
