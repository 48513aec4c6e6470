"""The weights of a Quiet-STaR model: any dense decoder, START and END, and the mixing head.

Shapes: H hidden, V vocabulary, N rows or tokens; any leading dimensions.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
from quietstar_infer.mixing import MixingHead, mix
from quietstar_infer.sampling import mask_meta_tokens
from training.config import Optimisation
from training.errors import UsageError
from training.kernels.cross_entropy import compute_dtype, logit_chunks
from training.kernels.thought_attention import TextAttention, use_thought_attention
from training.thoughts.batch import Batch, check_window
from training.thoughts.weights import initial_thought_tensors, load_base_model


class Mixed(NamedTuple):
    """Mixed hidden states (…, H) and their mixing weights (…)."""

    hidden: Tensor
    weight: Tensor


def first_dash_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token whose embedding new START and END begin as; raises `UsageError` without one."""
    dash: list[int] = tokenizer.encode(DASH, add_special_tokens=False)
    if not dash or dash[0] == tokenizer.unk_token_id:
        raise UsageError(
            f"the tokenizer cannot write {DASH}, which START and END begin their training as"
        )
    return dash[0]


class QuietThinker(nn.Module):
    """A base model that can think: `base_model`, `mixing_head`, `start_embedding`, `end_embedding`.

    The embeddings are (2, H) as in a checkpoint; row 0 times `embedding_scale` is fed to the base
    model. The scale is a learning-rate multiplier in training (`Optimisation.embedding_scale`) and
    100 in every checkpoint. Raises `UsageError` for a language-model head with a bias, for which
    mixing hidden states and mixing logits would differ.
    """

    def __init__(
        self,
        base_model: PreTrainedModel,
        thought_tensors: dict[str, Tensor],
        meta_token_ids: tuple[int, int],
        embedding_scale: float,
    ) -> None:
        super().__init__()
        use_thought_attention(base_model)
        self.trunk = base_model  # the name of its parameters in the checkpoints of runs
        self.meta_token_ids = meta_token_ids
        self.embedding_scale = embedding_scale
        self.mixing_head = MixingHead(base_model.config.hidden_size)
        shape = thought_tensors[START_EMBEDDING].shape
        self.start_embedding, self.end_embedding = (
            nn.Parameter(torch.empty(shape)) for _ in (START_EMBEDDING, END_EMBEDDING)
        )
        self.load_thought_parts(thought_tensors)
        if base_model.get_output_embeddings().bias is not None:
            raise UsageError("a base model whose language-model head has a bias cannot be mixed")

    @classmethod
    def from_base_model(
        cls,
        base_model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        embedding_scale: float,
        *,
        seed: int,
    ) -> "QuietThinker":
        """A base model with new thought parts; `seed` initialises the mixing head.

        START and END are added to tokenizer and base model where they are missing, and begin as the
        embedding of the dash. Raises `UsageError` where the tokenizer has no dash.
        """
        dash = first_dash_token(tokenizer)
        tokenizer.add_special_tokens(
            {"extra_special_tokens": [START_TOKEN, END_TOKEN]}, replace_extra_special_tokens=False
        )
        vocabulary = tokenizer.get_vocab()
        meta_token_ids = vocabulary[START_TOKEN], vocabulary[END_TOKEN]
        if max(meta_token_ids) >= len(_weight(base_model.get_input_embeddings())):
            base_model.resize_token_embeddings(len(tokenizer))
        table_VH = _weight(base_model.get_input_embeddings()).detach()
        tensors = initial_thought_tensors(table_VH, dash, seed=seed)
        return cls(base_model, tensors, meta_token_ids, embedding_scale)

    @classmethod
    def from_checkpoint(
        cls, folder: Path, embedding_scale: float = EMBEDDING_SCALE
    ) -> "QuietThinker":
        """A checkpoint of the official layout, in float32 on the CPU; raises `CheckpointError`."""
        base_model = load_base_model(folder)
        names = thought_tensor_shapes(base_model.config.hidden_size)
        tensors = load_tensors(folder)
        config = QuietStarConfig.from_checkpoint(folder)
        thought_tensors = {name: tensors[name].float() for name in names}
        for name in (START_EMBEDDING, END_EMBEDDING):
            thought_tensors[name] *= config.embedding_scale / EMBEDDING_SCALE
        return cls(base_model, thought_tensors, config.meta_token_ids, embedding_scale)

    @torch.no_grad()
    def load_thought_parts(self, tensors: Mapping[str, Tensor]) -> None:
        """Take START, END and mixing head from tensors by their official names, in the official
        scale; those that are missing stay as they are.
        """
        stored = EMBEDDING_SCALE / self.embedding_scale
        for name, embedding in (
            (START_EMBEDDING, self.start_embedding),
            (END_EMBEDDING, self.end_embedding),
        ):
            if name in tensors:
                embedding.copy_(tensors[name] * stored)
        head = {
            name.removeprefix(MIXING_HEAD_PREFIX): tensor
            for name, tensor in tensors.items()
            if name.startswith(MIXING_HEAD_PREFIX)
        }
        if head:
            self.mixing_head.load_state_dict(head)

    def official_tensors(self) -> dict[str, Tensor]:
        """Every weight by its official name and in the official scale, detached.

        A language-model head that is tied to the embeddings is left out, as transformers does.
        """
        base = self.base_model.state_dict()
        if self.base_model.config.tie_word_embeddings:
            del base["lm_head.weight"]
        stored = self.embedding_scale / EMBEDDING_SCALE
        head = self.mixing_head.state_dict()
        return {
            **base,
            START_EMBEDDING: self.start_embedding.detach() * stored,
            END_EMBEDDING: self.end_embedding.detach() * stored,
            **{MIXING_HEAD_PREFIX + name: tensor for name, tensor in head.items()},
        }

    @property
    def base_model(self) -> PreTrainedModel:
        """The language model without thoughts."""
        return self.trunk

    @property
    def thought_embeddings(self) -> tuple[nn.Parameter, nn.Parameter]:
        """START's and END's."""
        return self.start_embedding, self.end_embedding

    @property
    def lm_head_VH(self) -> Tensor:
        """The language-model head's weight."""
        return _weight(self.base_model.get_output_embeddings())

    @property
    def start_H(self) -> Tensor:
        """START as it is fed to the base model."""
        return self.start_embedding[0] * self.embedding_scale

    @property
    def end_H(self) -> Tensor:
        """END as it is fed to the base model."""
        return self.end_embedding[0] * self.embedding_scale

    def check_window(self, batch: Batch, ahead: int) -> None:
        """`training.thoughts.batch.check_window` for this base model."""
        window = self.base_model.config.get_text_config().to_dict().get("sliding_window")
        check_window(batch.input_ids_BT.shape[1], ahead, window)

    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings of text tokens, (…, H)."""
        embeddings: Tensor = self.base_model.get_input_embeddings()(ids)
        return embeddings

    def embed_paths(self, thought_ids: Tensor, following_ids: Tensor) -> Tensor:
        """START, the thought (…, K), END and the text that follows it (…, F): (…, K+2+F, H)."""
        budget = thought_ids.shape[-1]
        # One look-up: each would have a gradient of the size of the table.
        tokens = self.embed(torch.cat([thought_ids, following_ids], dim=-1))
        start, end = (x.expand(*tokens.shape[:-2], 1, -1) for x in (self.start_H, self.end_H))
        return torch.cat([start, tokens[..., :budget, :], end, tokens[..., budget:, :]], dim=-2)

    def hidden_states(
        self, embeddings_BNH: Tensor, position_ids: Tensor, **attention: Any
    ) -> Tensor:
        """The base model's output after its final norm, (B, N, H); positions are (1, N) or (B, N).

        `attention` is passed on to the attention: `thought_attention`, or `attention_mask`.
        """
        output = self.base_model.base_model(  # transformers' name for a model without its head
            inputs_embeds=embeddings_BNH,
            position_ids=position_ids,
            use_cache=False,
            **attention,
        )
        hidden_BNH: Tensor = output.last_hidden_state
        return hidden_BNH

    def text_states(self, text: TextAttention, ids_BT: Tensor, first: int = 0) -> Tensor:
        """The base model's hidden states of a text, (B, T, H); `text` keeps its keys and values.

        `first` is the position of the first token, where `text` has those before it already.
        """
        position = text.positions(first, first + ids_BT.shape[1], ids_BT.device)
        return self.hidden_states(self.embed(ids_BT), position, thought_attention=text)

    def mix(self, base: Tensor, thought: Tensor) -> Mixed:
        """h = (1 - w)·h_base + w·h_thought, with w = mixing_head([h_base; h_thought])."""
        weight = self.mixing_head.weight(base, thought)
        return Mixed(mix(base, thought, weight), weight[..., 0])

    def logits(self, hidden_NH: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Runs of rows and their logits in float32, with START's and END's at -inf; the next run
        overwrites them.
        """
        weight_VH = self.lm_head_VH
        for rows, logits in logit_chunks(hidden_NH, weight_VH, compute_dtype(weight_VH)):
            yield rows, mask_meta_tokens(logits, self.meta_token_ids)


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def parameter_groups(thinker: QuietThinker, settings: Optimisation) -> list[dict[str, Any]]:
    """AdamW's parameter groups: base model, mixing head, START with END, each with its learning
    rate.
    """
    groups = (
        (list(thinker.base_model.parameters()), settings.learning_rate),
        (list(thinker.mixing_head.parameters()), settings.head_learning_rate),
        (list(thinker.thought_embeddings), settings.embedding_learning_rate),
    )
    return [{"params": parameters, "lr": rate} for parameters, rate in groups]
