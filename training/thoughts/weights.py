"""Weights that a run starts from: the base model of a checkpoint, and new thought parts.

New thought parts are what the official code initialises in the first forward pass of a training
run: START and END are the embedding of the dash, and the mixing head's last layer is zero, so that
the model predicts what its base model predicts.
"""

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME

from quietstar_infer.checkpoint import (
    EMBED_TOKENS,
    END_EMBEDDING,
    LM_HEAD,
    MIXING_HEAD_PREFIX,
    START_EMBEDDING,
    check_checkpoint,
    load_tensors,
    thought_tensor_shapes,
)
from quietstar_infer.config import EMBEDDING_SCALE
from quietstar_infer.errors import CheckpointError
from quietstar_infer.mixing import MixingHead

_SPREAD_SCALE = 1e-2


def initial_thought_tensors(embed_tokens_VH: Tensor, dash: int, *, seed: int) -> dict[str, Tensor]:
    """The tensors beyond the base model, by official name, as a training run starts with them.

    START and END (2, H): row 0 is the dash's embedding / 100; row 1, which is not used, is the log
    of the embeddings' spread (modeling_mistral.py, L1503-1537).
    """
    hidden = embed_tokens_VH.shape[1]
    spread_H = embed_tokens_VH.std(dim=0) * _SPREAD_SCALE / EMBEDDING_SCALE
    meta_2H = torch.stack([embed_tokens_VH[dash] / EMBEDDING_SCALE, spread_H.log()])
    torch.manual_seed(seed)
    head = MixingHead(hidden)
    head.start_closed()
    named = {MIXING_HEAD_PREFIX + name: tensor for name, tensor in head.state_dict().items()}
    return {START_EMBEDDING: meta_2H, END_EMBEDDING: meta_2H.clone(), **named}


def load_base_model(folder: Path) -> PreTrainedModel:
    """The base model of a checkpoint, without its thought parts, with its generation config, on the
    CPU, in evaluation mode.

    Raises `CheckpointError` if the folder is not a complete Quiet-STaR checkpoint.
    """
    check_checkpoint(folder)
    config = AutoConfig.from_pretrained(folder)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    extra = thought_tensor_shapes(config.hidden_size)
    base = {name: tensor for name, tensor in load_tensors(folder).items() if name not in extra}
    if config.tie_word_embeddings:
        base.setdefault(LM_HEAD, base[EMBED_TOKENS])
    try:
        model.load_state_dict(base)
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder}: the base model does not fit config.json: {error}"
        ) from None
    if (folder / GENERATION_CONFIG_NAME).exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    model.eval()
    return model
