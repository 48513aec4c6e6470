"""The model that is evaluated, and what identifies it."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from quietstar_infer.checkpoint import load_gate, meta_embeddings
from quietstar_infer.config import EmbeddingMode, QuietStarConfig, read_json
from quietstar_infer.gate import ThoughtGate
from training.errors import UsageError
from training.thoughts.loading import has_thought_parts, load_model
from training.thoughts.model import QuietThinker

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class EvaluatedModel(NamedTuple):
    """A thinker and its tokenizer."""

    thinker: QuietThinker
    tokenizer: PreTrainedTokenizerBase


def load_for_evaluation(
    folder: Path, mode: EmbeddingMode | None, device: str | None, dtype: str
) -> EvaluatedModel:
    """A checkpoint, or a base model that does not think, on a device (None: a GPU where there is
    one). `mode`: of START's and END's embeddings, None = the checkpoint's own. Raises `UsageError`
    and `CheckpointError`.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    thinker, tokenizer = load_model(str(folder))
    if has_thought_parts(folder):
        _set_meta_embeddings(thinker, QuietStarConfig.from_checkpoint(folder, mode))
    try:
        return EvaluatedModel(thinker.to(device, DTYPES[dtype]).eval(), tokenizer)
    except (RuntimeError, AssertionError) as error:  # torch's, for a device that is not there
        raise UsageError(f"--device {device}: {str(error).splitlines()[0]}") from None


def load_evaluated_gate(folder: Path, thinker: QuietThinker) -> ThoughtGate | None:
    """A checkpoint's thought gate, on the thinker's device; None where it has none. Raises
    `CheckpointError`.
    """
    if not has_thought_parts(folder):
        return None
    gate = load_gate(folder, QuietStarConfig.from_checkpoint(folder))
    return gate and gate.to(thinker.lm_head_VH.device)


def _set_meta_embeddings(thinker: QuietThinker, config: QuietStarConfig) -> None:
    """START and END as the server feeds them."""
    table_VH = thinker.embed(torch.arange(thinker.lm_head_VH.shape[0])).detach()
    # The thinker's are scaled already.
    unscaled = replace(config, embedding_scale=thinker.embedding_scale)
    pair = (thinker.start_embedding, thinker.end_embedding)
    vectors = meta_embeddings(unscaled, table_VH, *(x.detach() for x in pair))
    for parameter, vector_H in zip(pair, vectors, strict=True):
        parameter.data[0] = vector_H / thinker.embedding_scale


def identity(folder: Path, source: str) -> dict[str, Any]:
    """What identifies a model: its name, a hash of its weights, the `quiet_star` section."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return {
        "source": source,
        "sha256": digest.hexdigest(),
        "quiet_star": read_json(folder / "config.json").get("quiet_star"),
    }
