"""Texts continued in this process, every token after a thought; several continuations at once.

Each visible token is one step for all continuations of a text: START, the thought and END are read
behind the text and forgotten again. What is drawn depends on a continuation's seed and on the
position alone.

Shapes: B continuations, H hidden, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from quietstar_infer.mixing import mix
from training.evaluations.backends.base import Sampling
from training.thoughts.decode import Thoughts, draw
from training.thoughts.model import QuietThinker
from training.demo.accuracy import allowed_logits, read_on

SPOKEN = 2**20
"""The step of a visible token's noise: no thought is so long."""


@torch.inference_mode()
def continuations(
    thinker: QuietThinker,
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    budget: int,
    thoughts: Thoughts,
    sampling: Sampling,
) -> list[str]:
    """Continuations of a text, one for each seed, as `Route.continue_text` says."""
    cache = DynamicCache()
    seed_B = torch.tensor(sampling.seeds)
    fed_BT = torch.tensor([list(ids)] * len(seed_B), device=thinker.lm_head_VH.device)
    said: list[list[int]] = [[] for _ in sampling.seeds]
    texts: list[str | None] = [None] * len(said)
    for number in range(sampling.max_tokens):
        position = len(ids) - 1 + number
        base_BH = read_on(thinker, thinker.embed(fed_BT), cache)
        mixed_BH = base_BH
        if budget:
            mixed_BH = after_thought(thinker, base_BH, cache, position, budget, thoughts, seed_B)
        logits_BV = allowed_logits(thinker, mixed_BH).float()
        speak = Thoughts((0,), sampling.temperature)
        at_B, step_B = torch.full_like(seed_B, position), torch.full_like(seed_B, SPOKEN)
        next_B = draw(logits_BV, seed_B, at_B, step_B, speak)
        for row, token in enumerate(next_B.tolist()):
            if texts[row] is None:
                texts[row] = _ended(tokenizer, said[row], token, sampling.stop)
        if all(text is not None for text in texts):
            break
        fed_BT = next_B[:, None]
    return [
        _text(tokenizer, ids) if text is None else text
        for ids, text in zip(said, texts, strict=True)
    ]


def after_thought(
    thinker: QuietThinker,
    base_BH: Tensor,
    cache: DynamicCache,
    position: int,
    budget: int,
    thoughts: Thoughts,
    seed_B: Tensor,
) -> Tensor:
    """The mixed hidden states after a thought about the end of the text, (B, H)."""
    start_B1H, end_B1H = (x.expand(len(base_BH), 1, -1) for x in (thinker.start_H, thinker.end_H))
    last_BH = read_on(thinker, start_B1H, cache)
    for step in range(budget):
        logits_BV = allowed_logits(thinker, last_BH).float()
        at_B, step_B = torch.full_like(seed_B, position), torch.full_like(seed_B, step)
        next_B = draw(logits_BV, seed_B, at_B, step_B, thoughts)
        last_BH = read_on(thinker, thinker.embed(next_B[:, None]), cache)
    thought_BH = read_on(thinker, end_B1H, cache)
    cache.crop(-(budget + 2))
    return mix(base_BH, thought_BH, thinker.mixing_head.weight(base_BH, thought_BH))


def _ended(
    tokenizer: PreTrainedTokenizerBase, said: list[int], token: int, stop: Sequence[str]
) -> str | None:
    """The whole continuation, if a token ends it; else the token is added to what was said."""
    if token == tokenizer.eos_token_id:
        return _text(tokenizer, said)
    said.append(token)
    text = _text(tokenizer, said)
    ends = [text.index(word) for word in stop if word in text]
    return text[: min(ends)] if ends else None


def _text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert isinstance(text, str), "one text, no batch"
    return text
