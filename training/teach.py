"""Teaching the demonstration model to think, and its control, which reads the same without it.

The documents hold no aside: that thinking pays where an answer is due is for the model to find out.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import PreTrainedTokenizerBase

from training.batch import IGNORED, Batch, make_batch
from training.corpus import CorpusConfig, documents
from training.fast import fast_step
from training.model import QuietThinker, parameter_groups
from training.presets import RECOMMENDED, Optimisation, Preset
from training.sampling import draw

PARTS = 2
"""A step's documents are read in so many batches, by length, so that little is padding."""
FIRST_DOCUMENTS = 1000
"""The corpus seed of lesson 0; the trunk has read those of the small seeds."""

LossOf = Callable[[Batch], Tensor]
Watch = Callable[[int], None]


@dataclass(frozen=True)
class Lesson:
    """How the trunk is taught. The rates are flat for half of the steps, then fall linearly."""

    settings: Preset = RECOMMENDED
    steps: int = 50
    flat_share: float = 0.5
    last_rate: float = 0.05
    seed: int = 0


def quiet_documents(seed: int) -> Iterator[str]:
    """The corpus without asides and without the words that ask for one."""
    return documents(seed, CorpusConfig(cue=0.0, uncued_aside=0.0))


def pad(rows: list[list[int]], padding: int) -> Batch:
    """Rows of ids that end in end-of-text, which is to be learnt where it is not padding."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [padding] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return make_batch(ids, padding, attention_mask=mask)


def lesson_batches(tokenizer: PreTrainedTokenizerBase, lesson: Lesson) -> Iterator[list[Batch]]:
    """The batches of each step, without end."""
    stream = quiet_documents(FIRST_DOCUMENTS + lesson.seed)
    number = lesson.settings.optimisation.sequences_per_step
    size = -(-number // PARTS)
    while True:
        texts = list(itertools.islice(stream, number))
        ids = tokenizer(texts)["input_ids"]
        rows = sorted(([*row, tokenizer.eos_token_id] for row in ids), key=len)
        yield [
            pad(rows[start : start + size], tokenizer.pad_token_id)
            for start in range(0, number, size)
        ]


def rate_factor(step: int, lesson: Lesson) -> float:
    """The learning rates of a step (counted from 0) as a share of the full ones."""
    warm = min(1.0, (step + 1) / max(1, lesson.settings.optimisation.warmup_steps))
    flat_until = lesson.steps * lesson.flat_share
    fallen = max(0.0, (step - flat_until) / max(1.0, lesson.steps - flat_until))
    return warm * max(lesson.last_rate, 1 - fallen)


def new_optimizer(thinker: QuietThinker, settings: Optimisation) -> torch.optim.AdamW:
    """AdamW with the mixing head's own rate."""
    return torch.optim.AdamW(
        parameter_groups(thinker, settings),
        betas=settings.betas,
        weight_decay=settings.weight_decay,
    )


def learn(
    thinker: QuietThinker,
    tokenizer: PreTrainedTokenizerBase,
    lesson: Lesson,
    loss_of: LossOf,
    watch: Watch = lambda step: None,
) -> None:
    """Train in place; `watch` is called before the first step (0) and after each."""
    settings = lesson.settings.optimisation
    optimizer = new_optimizer(thinker, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: rate_factor(s, lesson))
    stream = itertools.islice(lesson_batches(tokenizer, lesson), lesson.steps)
    watch(0)
    for step, batches in enumerate(tqdm(stream, total=lesson.steps, unit="step"), start=1):
        targets = [int((batch.labels_BT[:, 1:] != IGNORED).sum()) for batch in batches]
        for batch, number in zip(batches, targets, strict=True):
            (loss_of(batch) * (number / sum(targets))).backward()
        torch.nn.utils.clip_grad_norm_(thinker.parameters(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        watch(step)


def teach(
    thinker: QuietThinker,
    tokenizer: PreTrainedTokenizerBase,
    lesson: Lesson,
    watch: Watch = lambda step: None,
) -> None:
    """Quiet-STaR training, in place."""
    generator = torch.Generator().manual_seed(lesson.seed)
    choose = draw(lesson.settings.thinking.temperature, generator)
    learn(
        thinker,
        tokenizer,
        lesson,
        lambda batch: fast_step(thinker, batch, lesson.settings, choose).loss,
        watch,
    )


def train_on(thinker: QuietThinker, tokenizer: PreTrainedTokenizerBase, lesson: Lesson) -> None:
    """The control: the same documents, steps and rates, without thoughts."""
    learn(thinker, tokenizer, lesson, lambda batch: plain_loss(thinker, batch))


def plain_loss(thinker: QuietThinker, batch: Batch) -> Tensor:
    """The trunk's own next-token loss."""
    logits_BTV = thinker.trunk(input_ids=batch.input_ids_BT, use_cache=False).logits
    return F.cross_entropy(
        logits_BTV[:, :-1].flatten(0, 1),
        batch.labels_BT[:, 1:].flatten(),
        ignore_index=IGNORED,
    )
