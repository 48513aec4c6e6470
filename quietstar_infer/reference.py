"""The algorithm in plain torch: slow, readable, and what the engine is measured against.

A thought is an ordinary continuation of the text. To predict what follows x_0 … x_p, the base model
runs on

    x_0 … x_p                              the last hidden state is the base
    x_0 … x_p  START                       t_1 is sampled from the last logits
    x_0 … x_p  START  t_1 … t_k            t_{k+1} is sampled from the last logits
    x_0 … x_p  START  t_1 … t_b  END       the last hidden state is the thought

and the mixing head weighs base and thought in the prediction (paper, section 4). Every row of this
table is a forward pass over all of its tokens; nothing is cached. Above a thought threshold of 0
the first row comes alone, and the others only where the expected gain of the thought, estimated
from the base, is above the threshold; otherwise the base prediction stands.

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
    load_gate,
    load_tensors,
    meta_embeddings,
)
from quietstar_infer.config import EmbeddingMode, QuietStarConfig
from quietstar_infer.errors import CheckpointError
from quietstar_infer.gate import ThoughtGate, prediction_entropy
from quietstar_infer.mixing import MixingHead, mix
from quietstar_infer.sampling import draw_thought_tokens, mask_meta_tokens

# Chooses a thought token from its logits (V,), the text position p and the step k (0 for t_1).
ChooseThought = Callable[[torch.Tensor, int, int], int]
# Chooses a visible token from its logits (V,).
ChooseVisible = Callable[[torch.Tensor], int]


@dataclass(frozen=True)
class Prediction:
    """A prediction, and the thought before it. Logits are (V,), START and END at -inf.

    `expected_gain`: what the thought was expected to save, in nats. Where it was too little, there
    is no thought: its tokens are empty, its weight and its logits None.
    """

    thought_ids: list[int]
    mixing_weight: float | None
    logits_V: torch.Tensor
    base_logits_V: torch.Tensor
    thought_logits_V: torch.Tensor | None
    expected_gain: float


def greedy(logits_V: torch.Tensor) -> int:
    """The likeliest token."""
    return int(logits_V.argmax())


def greedy_thought(logits_V: torch.Tensor, position: int, step: int) -> int:
    """The likeliest thought token."""
    return greedy(logits_V)


def seeded_thought(seed: int, temperature: float) -> ChooseThought:
    """Draws thought tokens as the engine does for a request with this seed and temperature."""

    def choose(logits_V: torch.Tensor, position: int, step: int) -> int:
        where = (torch.tensor([number]) for number in (seed, position, step))
        return int(draw_thought_tokens(logits_V[None], torch.tensor([temperature]), *where))

    return choose


def given_thought(token_ids: Sequence[int]) -> ChooseThought:
    """Chooses the tokens of a given thought, whatever is likely."""
    return lambda logits_V, position, step: token_ids[step]


class ReferenceDecoder:
    """A Quiet-STaR checkpoint, thinking about one position at a time."""

    def __init__(
        self,
        model: PreTrainedModel,
        head: MixingHead,
        config: QuietStarConfig,
        start_H: torch.Tensor,
        end_H: torch.Tensor,
        gate: ThoughtGate | None = None,
    ) -> None:
        self.model = model.eval()
        self.head = head.eval()
        self.config = config
        self.start_H = start_H
        self.end_H = end_H
        self.gate = gate

    @classmethod
    def from_checkpoint(
        cls, folder: Path, embedding_mode: EmbeddingMode | None = None
    ) -> "ReferenceDecoder":
        """Load a local checkpoint of the official layout in float32; raises `CheckpointError`."""
        check_checkpoint(folder)
        config = QuietStarConfig.from_checkpoint(folder, embedding_mode)
        tensors = {name: tensor.float() for name, tensor in load_tensors(folder).items()}
        start_2H, end_2H = tensors.pop(START_EMBEDDING), tensors.pop(END_EMBEDDING)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(folder)))
        head = MixingHead(model.config.hidden_size)
        head.load_state_dict(
            {
                name.removeprefix(MIXING_HEAD_PREFIX): tensors.pop(name)
                for name in list(tensors)
                if name.startswith(MIXING_HEAD_PREFIX)
            }
        )
        _load_base_model(model, tensors, folder)
        start_H, end_H = meta_embeddings(
            config, model.get_input_embeddings().weight.detach(), start_2H, end_2H
        )
        return cls(model, head, config, start_H, end_H, load_gate(folder, config))

    @torch.inference_mode()
    def predict(
        self,
        text_ids: Sequence[int],
        budget: int,
        choose: ChooseThought = greedy_thought,
        threshold: float = 0.0,
    ) -> Prediction:
        """Predict what follows the text, after a thought of `budget` ≥ 1 tokens about its end;
        where `threshold` is above 0, only if the thought is expected to save more (nats).
        """
        text_TH = self._embed(text_ids)
        base_H = self._last_hidden(text_TH)
        base_logits_V = self._logits(base_H)
        expected_gain = self._expected_gain(base_H, base_logits_V, budget)
        if threshold > 0 and not expected_gain > threshold:
            return Prediction([], None, base_logits_V, base_logits_V, None, expected_gain)

        thought_ids, thought_H = self._think(text_TH, budget, choose)
        weight_1 = self.head.weight(base_H, thought_H)
        return Prediction(
            thought_ids=thought_ids,
            mixing_weight=float(weight_1),
            logits_V=self._logits(mix(base_H, thought_H, weight_1)),
            base_logits_V=base_logits_V,
            thought_logits_V=self._logits(thought_H),
            expected_gain=expected_gain,
        )

    def _expected_gain(
        self, base_H: torch.Tensor, base_logits_V: torch.Tensor, budget: int
    ) -> float:
        """By the checkpoint's gate, else by the entropy of the base prediction."""
        if self.gate is None:
            return float(prediction_entropy(base_logits_V[None]))
        return float(self.gate.expected_gain(base_H[None], torch.tensor([budget])))

    def _think(
        self, text_TH: torch.Tensor, budget: int, choose: ChooseThought
    ) -> tuple[list[int], torch.Tensor]:
        """A thought's tokens, and its hidden state, (H,)."""
        position = len(text_TH) - 1
        thought_ids: list[int] = []
        chain_TH = torch.cat([text_TH, self.start_H[None]])
        for step in range(budget):
            logits_V = self._logits(self._last_hidden(chain_TH))
            thought_ids.append(choose(logits_V, position, step))
            chain_TH = torch.cat([chain_TH, self._embed(thought_ids[-1:])])
        return thought_ids, self._last_hidden(torch.cat([chain_TH, self.end_H[None]]))

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
        choose_visible: ChooseVisible = greedy,
        threshold: float = 0.0,
        first_thought: Sequence[int] = (),
    ) -> tuple[list[int], list[Prediction]]:
        """`max_tokens` visible tokens, and the prediction that each was chosen from (none at budget
        0). `first_thought`: the thought before the first, where it is given.
        """
        text = list(prompt_ids)
        predictions: list[Prediction] = []
        for index in range(max_tokens):
            if index == 0 and first_thought:
                given = given_thought(first_thought)
                predictions.append(self.predict(text, len(first_thought), given))
                text.append(choose_visible(predictions[-1].logits_V))
                continue
            if budget == 0:
                text.append(choose_visible(self.predict_plainly(text)))
                continue
            predictions.append(self.predict(text, budget, choose, threshold))
            text.append(choose_visible(predictions[-1].logits_V))
        return text[len(prompt_ids) :], predictions

    def _embed(self, token_ids: Sequence[int]) -> torch.Tensor:
        embeddings_TH: torch.Tensor = self.model.get_input_embeddings()(torch.tensor(token_ids))
        return embeddings_TH

    def _last_hidden(self, chain_TH: torch.Tensor) -> torch.Tensor:
        """The hidden state after the final norm at the end of a chain of embeddings, (H,)."""
        output = self.model.model(inputs_embeds=chain_TH[None], use_cache=False)
        hidden_H: torch.Tensor = output.last_hidden_state[0, -1]
        return hidden_H

    def _logits(self, hidden_H: torch.Tensor) -> torch.Tensor:
        logits_V: torch.Tensor = self.model.get_output_embeddings()(hidden_H)
        return mask_meta_tokens(logits_V, self.config.meta_token_ids)


def _load_base_model(
    model: PreTrainedModel, tensors: dict[str, torch.Tensor], folder: Path
) -> None:
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    missing_names = sorted(set(missing) - tied)
    if missing_names:
        raise CheckpointError(f"{folder} is incomplete: it lacks {', '.join(missing_names)}")
    if unexpected:
        raise CheckpointError(f"{folder} has unexpected tensors: {', '.join(sorted(unexpected))}")
    model.tie_weights()
