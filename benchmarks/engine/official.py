"""Generation as in the official code: for every token the whole text is computed anew, with a
thought at every position.

Only the last position's thought is used. What else the official code computes and throws away is
left out here (mixing after every thought token, thought tokens as one-hot rows times the embedding
table), so the measured loop is, if anything, faster than the original.

Shapes: B texts of T tokens, H hidden, V vocabulary, K keys.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import DynamicCache

from quietstar_infer.mixing import mix
from quietstar_infer.reference import ReferenceDecoder
from quietstar_infer.sampling import mask_meta_tokens

# From logits (B, T, V) to thought tokens (B, T).
ChooseThoughts = Callable[[torch.Tensor], torch.Tensor]


def sampled(logits_BTV: torch.Tensor) -> torch.Tensor:
    """An exact draw at temperature 1 at every position, as the official code's Gumbel trick is."""
    noise_BTV = torch.empty_like(logits_BTV).exponential_().log_().neg_()
    return (logits_BTV + noise_BTV).argmax(dim=-1)


def likeliest(logits_BTV: torch.Tensor) -> torch.Tensor:
    """The greedy choice."""
    return logits_BTV.argmax(dim=-1)


class OfficialLoop:
    """A checkpoint whose thoughts are computed at all positions at once."""

    def __init__(self, decoder: ReferenceDecoder, device: torch.device, dtype: torch.dtype) -> None:
        self.base_model = decoder.model.to(device, dtype)
        self._head = decoder.head.to(device, dtype)
        self._start_H = decoder.start_H.to(device, dtype)
        self._end_H = decoder.end_H.to(device, dtype)
        self._meta_token_ids = decoder.config.meta_token_ids
        self._device = device

    @classmethod
    def from_checkpoint(
        cls, folder: Path, device: torch.device, dtype: torch.dtype
    ) -> "OfficialLoop":
        """Load a local checkpoint; raises `CheckpointError`."""
        return cls(ReferenceDecoder.from_checkpoint(folder), device, dtype)

    @torch.inference_mode()
    def predict(
        self, text_BT: torch.Tensor, budget: int, choose: ChooseThoughts = sampled
    ) -> torch.Tensor:
        """Logits (B, T, V) of what follows every position, after thoughts of `budget` ≥ 1 tokens.

        budget + 3 passes over all positions: text, START, thought tokens, END.
        """
        cache = DynamicCache()
        base_BTH = self._forward(self._embed(text_BT), 0, cache)
        hidden_BTH = self._forward(self._start_H.expand_as(base_BTH), 1, cache)
        for step in range(budget):
            token_BT = choose(self._logits(hidden_BTH))
            hidden_BTH = self._forward(self._embed(token_BT), 2 + step, cache)
        thought_BTH = self._forward(self._end_H.expand_as(base_BTH), 2 + budget, cache)
        weight_BT1 = self._head.weight(base_BTH, thought_BTH)
        return self._logits(mix(base_BTH, thought_BTH, weight_BT1))

    def generate(self, text_BT: torch.Tensor, tokens: int, budget: int) -> torch.Tensor:
        """The texts with `tokens` more visible tokens, sampled at temperature 1."""
        for _ in range(tokens):
            token_B1 = sampled(self.predict(text_BT, budget)[:, -1:])
            text_BT = torch.cat([text_BT, token_B1], dim=1)
        return text_BT

    def _embed(self, token_BT: torch.Tensor) -> torch.Tensor:
        embedded_BTH: torch.Tensor = self.base_model.get_input_embeddings()(token_BT)
        return embedded_BTH

    def _forward(self, fed_BTH: torch.Tensor, step: int, cache: DynamicCache) -> torch.Tensor:
        """Pass number `step`: one more token at every position; hidden states (B, T, H)."""
        length = fed_BTH.shape[1]
        position_1T = torch.arange(step, step + length, device=self._device)[None]
        output = self.base_model.base_model(
            inputs_embeds=fed_BTH,
            position_ids=position_1T,
            past_key_values=cache,
            attention_mask=self._attention_mask(length, step)[None, None],
        )
        hidden_BTH: torch.Tensor = output.last_hidden_state
        return hidden_BTH

    def _attention_mask(self, length: int, step: int) -> torch.Tensor:
        """(T, K): position i attends to the text up to i and to its own thought only."""
        text_TT = torch.ones(length, length, dtype=torch.bool, device=self._device).tril()
        own_TT = torch.eye(length, dtype=torch.bool, device=self._device)
        return torch.cat([text_TT, *[own_TT] * step], dim=1)

    def _logits(self, hidden_BTH: torch.Tensor) -> torch.Tensor:
        logits_BTV: torch.Tensor = self.base_model.get_output_embeddings()(hidden_BTH)
        return mask_meta_tokens(logits_BTV, self._meta_token_ids)
