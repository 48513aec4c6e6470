"""The attention implementation that is plugged into transformers, where there are no thoughts."""

from pathlib import Path

import pytest
import torch

from tests.support.checkpoints import write_random_checkpoint
from training.kernels.thought_attention import use_thought_attention
from training.thoughts.weights import load_base_model


@pytest.mark.parametrize("queries", [1, 3])
def test_a_kv_cache_is_used_without_thoughts(queries: int, tmp_path: Path) -> None:
    """A base model with thought attention still decodes with transformers' KV cache."""
    base = load_base_model(write_random_checkpoint(tmp_path, "mistral"))
    use_thought_attention(base)
    ids = torch.arange(8, 20)[None]
    with torch.no_grad():
        whole = base(ids).logits
        cache = base(ids[:, :-queries], use_cache=True).past_key_values
        rest = base(ids[:, -queries:], past_key_values=cache).logits
    torch.testing.assert_close(rest, whole[:, -queries:], rtol=1e-4, atol=1e-4)
