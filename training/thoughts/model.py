"""The weights of a quiet thinker: any dense decoder, START and END, and the mixing head.

Shapes: H hidden, V vocabulary; any leading dimensions.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quietstar_infer.checkpoint import (
    END_EMBEDDING,
    MIXING_HEAD_PREFIX,
    START_EMBEDDING,
    load_tensors,
    thought_tensor_shapes,
)
from quietstar_infer.config import DASH, EMBEDDING_SCALE, END_TOKEN, START_TOKEN, QuietStarConfig
from quietstar_infer.mixing import MixingHead
from training.kernels.attention import plug_into
from training.thoughts.batch import Batch, check_window
from training.trainer.checkpoint import initial_thought_tensors, load_trunk
from training.errors import UsageError
from training.config import Optimisation


class QuietThinker(nn.Module):
    """A trunk that can think: `trunk`, `mixing_head`, `start_embedding` and `end_embedding`.

    The embeddings are (2, H) as in a checkpoint, row 0 times `embedding_scale` is what the trunk
    reads; the scale is a learning-rate multiplier in training (`Optimisation.embedding_scale`) and
    100 in every checkpoint. Raises `UsageError` for a language-model head with a bias, for which
    mixing hidden states and mixing logits would differ.
    """

    def __init__(
        self,
        trunk: PreTrainedModel,
        thought_tensors: dict[str, Tensor],
        meta_token_ids: tuple[int, int],
        embedding_scale: float,
    ) -> None:
        super().__init__()
        plug_into(trunk)
        self.trunk = trunk
        self.meta_token_ids = meta_token_ids
        self.embedding_scale = embedding_scale
        self.mixing_head = MixingHead(trunk.config.hidden_size)
        self.mixing_head.load_state_dict(
            {
                name.removeprefix(MIXING_HEAD_PREFIX): tensor
                for name, tensor in thought_tensors.items()
                if name.startswith(MIXING_HEAD_PREFIX)
            }
        )
        stored = EMBEDDING_SCALE / embedding_scale
        self.start_embedding = nn.Parameter(thought_tensors[START_EMBEDDING] * stored)
        self.end_embedding = nn.Parameter(thought_tensors[END_EMBEDDING] * stored)
        if trunk.get_output_embeddings().bias is not None:
            raise UsageError("a trunk whose language-model head has a bias cannot be mixed")

    @classmethod
    def from_trunk(
        cls,
        trunk: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        embedding_scale: float,
        *,
        seed: int,
    ) -> "QuietThinker":
        """A trunk that has not thought yet; `seed` is that of the mixing head.

        START and END are added to tokenizer and trunk where they are missing, and begin as the
        embedding of the dash. Raises `UsageError` where the tokenizer cannot write a dash.
        """
        dash = tokenizer.encode(DASH, add_special_tokens=False)
        if not dash or dash[0] == tokenizer.unk_token_id:
            raise UsageError(
                f"the tokenizer cannot write {DASH}, which START and END begin their training as"
            )
        tokenizer.add_special_tokens({"additional_special_tokens": [START_TOKEN, END_TOKEN]})
        vocabulary = tokenizer.get_vocab()
        meta_token_ids = vocabulary[START_TOKEN], vocabulary[END_TOKEN]
        if max(meta_token_ids) >= len(_weight(trunk.get_input_embeddings())):
            trunk.resize_token_embeddings(len(tokenizer))
        table_VH = _weight(trunk.get_input_embeddings()).detach()
        tensors = initial_thought_tensors(table_VH, dash[0], seed=seed)
        return cls(trunk, tensors, meta_token_ids, embedding_scale)

    @classmethod
    def from_checkpoint(
        cls, folder: Path, embedding_scale: float = EMBEDDING_SCALE
    ) -> "QuietThinker":
        """A checkpoint of the official layout, in float32 on the CPU; raises `CheckpointError`."""
        trunk = load_trunk(folder)
        names = thought_tensor_shapes(trunk.config.hidden_size)
        tensors = load_tensors(folder)
        config = QuietStarConfig.from_checkpoint(folder)
        thought_tensors = {name: tensors[name].float() for name in names}
        for name in (START_EMBEDDING, END_EMBEDDING):
            thought_tensors[name] *= config.embedding_scale / EMBEDDING_SCALE
        return cls(trunk, thought_tensors, config.meta_token_ids, embedding_scale)

    def official_tensors(self) -> dict[str, Tensor]:
        """Every weight by its official name and in the official scale, detached.

        A language-model head that is tied to the embeddings is left out, as transformers does.
        """
        trunk = self.trunk.state_dict()
        if self.trunk.config.tie_word_embeddings:
            del trunk["lm_head.weight"]
        stored = self.embedding_scale / EMBEDDING_SCALE
        head = self.mixing_head.state_dict()
        return {
            **trunk,
            START_EMBEDDING: self.start_embedding.detach() * stored,
            END_EMBEDDING: self.end_embedding.detach() * stored,
            **{MIXING_HEAD_PREFIX + name: tensor for name, tensor in head.items()},
        }

    @property
    def lm_head_VH(self) -> Tensor:
        """The language-model head's weight."""
        return _weight(self.trunk.get_output_embeddings())

    @property
    def start_H(self) -> Tensor:
        """START as the trunk reads it."""
        return self.start_embedding[0] * self.embedding_scale

    @property
    def end_H(self) -> Tensor:
        """END as the trunk reads it."""
        return self.end_embedding[0] * self.embedding_scale

    def check_window(self, batch: Batch, ahead: int) -> None:
        """`training.thoughts.batch.check_window` for this trunk."""
        window = self.trunk.config.get_text_config().to_dict().get("sliding_window")
        check_window(batch.input_ids_BT.shape[1], ahead, window)

    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings of text tokens, (…, H)."""
        embeddings: Tensor = self.trunk.get_input_embeddings()(ids)
        return embeddings

    def embed_paths(self, thought_ids: Tensor, following_ids: Tensor) -> Tensor:
        """START, the thought (…, K), END and the text that follows it (…, F): (…, K+2+F, H)."""
        budget = thought_ids.shape[-1]
        # One look-up: each would have a gradient of the size of the table.
        tokens = self.embed(torch.cat([thought_ids, following_ids], dim=-1))
        start, end = (x.expand(*tokens.shape[:-2], 1, -1) for x in (self.start_H, self.end_H))
        return torch.cat([start, tokens[..., :budget, :], end, tokens[..., budget:, :]], dim=-2)

    def read(self, embeddings_BNH: Tensor, position_ids_1N: Tensor, **attention: Any) -> Tensor:
        """The trunk's output after its final norm, (B, N, H); `attention` reaches the attention."""
        output = self.trunk.base_model(
            inputs_embeds=embeddings_BNH,
            position_ids=position_ids_1N,
            use_cache=False,
            **attention,
        )
        hidden_BNH: Tensor = output.last_hidden_state
        return hidden_BNH


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def parameter_groups(thinker: QuietThinker, settings: Optimisation) -> list[dict[str, Any]]:
    """AdamW's parameter groups: trunk, mixing head, START and END, each with its learning rate."""
    groups = (
        (list(thinker.trunk.parameters()), settings.learning_rate),
        (list(thinker.mixing_head.parameters()), settings.head_learning_rate),
        ([thinker.start_embedding, thinker.end_embedding], settings.embedding_learning_rate),
    )
    return [{"params": parameters, "lr": rate} for parameters, rate in groups]
