"""Texts continued in this process, every token after a thought; several continuations at once.

Each visible token is one step for all continuations of a text: its thoughts are decoded over the
kept keys and values of the text, which then grows by the token. What is sampled depends on a
continuation's seed and on the position alone.

Shapes: B continuations, T tokens fed, H hidden.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from training.evaluations.backends.base import Sampling
from training.kernels.thought_attention import GrowingTextAttention
from training.thoughts.decode import ThoughtSettings, decode_thoughts, seeded_tokens
from training.thoughts.model import QuietThinker

VISIBLE_TOKEN_STEP = 2**20
"""The step of a visible token's noise: no thought is so long."""


@torch.inference_mode()
def continuations(
    thinker: QuietThinker,
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    budget: int,
    thoughts: ThoughtSettings,
    sampling: Sampling,
) -> list[str]:
    """Continuations of a text, one for each seed, as `Backend.continue_text` specifies."""
    text = GrowingTextAttention()
    fed_BT = torch.tensor([list(ids)] * len(sampling.seeds), device=thinker.lm_head_VH.device)
    sampled: list[list[int]] = [[] for _ in sampling.seeds]
    finished: list[str | None] = [None] * len(sampled)
    first = 0
    for _ in range(sampling.max_tokens):
        base_BH = thinker.text_states(text, fed_BT, first)[:, -1]
        first += fed_BT.shape[1]
        run = range(first - 1, first)  # the position of the last token
        choose = seeded_tokens(thinker, sampling.seeds, run, thoughts.temperature)
        hidden_BH = base_BH
        for thought in decode_thoughts(thinker, text, len(base_BH), run, (budget,), choose):
            hidden_BH = thinker.mix(base_BH, thought.hidden_BCH[:, 0]).hidden
        choose = seeded_tokens(thinker, sampling.seeds, run, sampling.temperature)
        fed_BT = choose(hidden_BH, VISIBLE_TOKEN_STEP)[:, None]
        _collect(tokenizer, fed_BT, sampled, finished, sampling.stop)
        if all(text is not None for text in finished):
            break
    return [
        _decoded(tokenizer, ids) if text is None else text
        for ids, text in zip(sampled, finished, strict=True)
    ]


def _collect(
    tokenizer: PreTrainedTokenizerBase,
    next_B1: Tensor,
    sampled: list[list[int]],
    finished: list[str | None],
    stop: Sequence[str],
) -> None:
    """Add a token to each continuation that has not finished."""
    for row, token in enumerate(next_B1[:, 0].tolist()):
        if finished[row] is None:
            finished[row] = _finished_text(tokenizer, sampled[row], token, stop)


def _finished_text(
    tokenizer: PreTrainedTokenizerBase, sampled: list[int], token: int, stop: Sequence[str]
) -> str | None:
    """The whole continuation, if a token ends it; else the token is added to those sampled."""
    if token == tokenizer.eos_token_id:
        return _decoded(tokenizer, sampled)
    sampled.append(token)
    text = _decoded(tokenizer, sampled)
    ends = [text.index(word) for word in stop if word in text]
    return text[: min(ends)] if ends else None


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert isinstance(text, str), "one text, no batch"
    return text
