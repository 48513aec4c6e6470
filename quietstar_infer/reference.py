"""The algorithm in plain torch: slow, readable, and what the engine is measured against.

A thought is an ordinary continuation of the text. To predict what follows x_0 … x_p, the trunk
reads

    x_0 … x_p                              its last hidden state is the base
    x_0 … x_p  START                       its logits say t_1
    x_0 … x_p  START  t_1 … t_k            its logits say t_{k+1}
    x_0 … x_p  START  t_1 … t_b  END       its last hidden state is the thought

and the mixing head says how much of the thought goes into the prediction (paper, section 4).
Everything is read anew at every step; nothing is cached.

Shapes: T text tokens, H hidden, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from quietstar_infer.checkpoint import (
    END_EMBEDDING,
    MIXING_HEAD_PREFIX,
    START_EMBEDDING,
    check_checkpoint,
    load_tensors,
    meta_embeddings,
)
from quietstar_infer.config import EmbeddingMode, QuietStarConfig
from quietstar_infer.errors import CheckpointError
from quietstar_infer.mixing import MixingHead, mix
from quietstar_infer.sampling import draw_thought_tokens, mask_meta_tokens

# From a thought token's logits (V,), the text position p and the step k (0 for t_1) to the token.
ChooseThought = Callable[[torch.Tensor, int, int], int]
# From the visible token's logits (V,) to the token.
ChooseVisible = Callable[[torch.Tensor], int]


@dataclass(frozen=True)
class Prediction:
    """What one thought led to. Logits are (V,), START and END at -inf."""

    thought_ids: list[int]
    mixing_weight: float
    logits_V: torch.Tensor
    base_logits_V: torch.Tensor
    thought_logits_V: torch.Tensor


def greedy(logits_V: torch.Tensor) -> int:
    """The likeliest token."""
    return int(logits_V.argmax())


def greedy_thought(logits_V: torch.Tensor, position: int, step: int) -> int:
    """The likeliest thought token."""
    return greedy(logits_V)


def seeded_thought(seed: int, temperature: float) -> ChooseThought:
    """The thought token that a request with this seed and temperature draws, in the engine too."""

    def choose(logits_V: torch.Tensor, position: int, step: int) -> int:
        where = (torch.tensor([number]) for number in (seed, position, step))
        return int(draw_thought_tokens(logits_V[None], torch.tensor([temperature]), *where))

    return choose


class ReferenceDecoder:
    """A Quiet-STaR checkpoint that thinks one position at a time."""

    def __init__(
        self,
        trunk: PreTrainedModel,
        head: MixingHead,
        config: QuietStarConfig,
        start_H: torch.Tensor,
        end_H: torch.Tensor,
    ) -> None:
        self.trunk = trunk.eval()
        self.head = head.eval()
        self.config = config
        self.start_H = start_H
        self.end_H = end_H

    @classmethod
    def from_checkpoint(
        cls, folder: Path, embedding_mode: EmbeddingMode | None = None
    ) -> "ReferenceDecoder":
        """Load a local checkpoint of the official layout in float32; raises `CheckpointError`."""
        check_checkpoint(folder)
        config = QuietStarConfig.from_checkpoint(folder, embedding_mode)
        tensors = {name: tensor.float() for name, tensor in load_tensors(folder).items()}
        start_2H, end_2H = tensors.pop(START_EMBEDDING), tensors.pop(END_EMBEDDING)
        trunk = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(folder)))
        head = MixingHead(trunk.config.hidden_size)
        head.load_state_dict(
            {
                name.removeprefix(MIXING_HEAD_PREFIX): tensors.pop(name)
                for name in list(tensors)
                if name.startswith(MIXING_HEAD_PREFIX)
            }
        )
        _load_trunk(trunk, tensors, folder)
        start_H, end_H = meta_embeddings(
            config, trunk.get_input_embeddings().weight.detach(), start_2H, end_2H
        )
        return cls(trunk, head, config, start_H, end_H)

    @torch.inference_mode()
    def predict(
        self, text_ids: Sequence[int], budget: int, choose: ChooseThought = greedy_thought
    ) -> Prediction:
        """Think `budget` ≥ 1 tokens about the end of the text, and predict what follows it."""
        position = len(text_ids) - 1
        chain_TH = self._embed(text_ids)
        base_H = self._last_hidden(chain_TH)

        thought_ids: list[int] = []
        chain_TH = torch.cat([chain_TH, self.start_H[None]])
        for step in range(budget):
            logits_V = self._logits(self._last_hidden(chain_TH))
            thought_ids.append(choose(logits_V, position, step))
            chain_TH = torch.cat([chain_TH, self._embed(thought_ids[-1:])])
        chain_TH = torch.cat([chain_TH, self.end_H[None]])
        thought_H = self._last_hidden(chain_TH)

        weight_1 = self.head.weight(base_H, thought_H)
        return Prediction(
            thought_ids=thought_ids,
            mixing_weight=float(weight_1),
            logits_V=self._logits(mix(base_H, thought_H, weight_1)),
            base_logits_V=self._logits(base_H),
            thought_logits_V=self._logits(thought_H),
        )

    @torch.inference_mode()
    def predict_plainly(self, text_ids: Sequence[int]) -> torch.Tensor:
        """The logits of what follows the text, (V,), without thinking."""
        return self._logits(self._last_hidden(self._embed(text_ids)))

    def generate(
        self,
        prompt_ids: Sequence[int],
        max_tokens: int,
        budget: int,
        choose: ChooseThought = greedy_thought,
        say: ChooseVisible = greedy,
    ) -> tuple[list[int], list[Prediction]]:
        """`max_tokens` visible tokens, and the prediction behind each (none at budget 0)."""
        text = list(prompt_ids)
        predictions: list[Prediction] = []
        for _ in range(max_tokens):
            if budget == 0:
                text.append(say(self.predict_plainly(text)))
                continue
            predictions.append(self.predict(text, budget, choose))
            text.append(say(predictions[-1].logits_V))
        return text[len(prompt_ids) :], predictions

    def _embed(self, token_ids: Sequence[int]) -> torch.Tensor:
        embeddings_TH: torch.Tensor = self.trunk.get_input_embeddings()(torch.tensor(token_ids))
        return embeddings_TH

    def _last_hidden(self, chain_TH: torch.Tensor) -> torch.Tensor:
        """The trunk's output after its final norm at the end of a chain of embeddings, (H,)."""
        output = self.trunk.model(inputs_embeds=chain_TH[None], use_cache=False)
        hidden_H: torch.Tensor = output.last_hidden_state[0, -1]
        return hidden_H

    def _logits(self, hidden_H: torch.Tensor) -> torch.Tensor:
        logits_V: torch.Tensor = self.trunk.get_output_embeddings()(hidden_H)
        return mask_meta_tokens(logits_V, self.config.meta_token_ids)


def _load_trunk(trunk: PreTrainedModel, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    missing, unexpected = trunk.load_state_dict(tensors, strict=False)
    tied = {"lm_head.weight"} if trunk.config.tie_word_embeddings else set()
    missing_names = sorted(set(missing) - tied)
    if missing_names:
        raise CheckpointError(f"{folder} is incomplete: it lacks {', '.join(missing_names)}")
    if unexpected:
        raise CheckpointError(f"{folder} has tensors of no use: {', '.join(sorted(unexpected))}")
    trunk.tie_weights()
