"""The demonstration's base model: a small Mistral, trained from scratch on plain text."""

import itertools
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerBase

from training.thoughts.batch import IGNORED

ROPE_THETA = 10_000.0


@dataclass(frozen=True)
class BaseModelConfig:
    """Shape of the model; head size is `hidden / heads` (vLLM's CPU attention takes 32 and 64)."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    intermediate: int = 352
    max_positions: int = 1024


@dataclass(frozen=True)
class BaseModelTraining:
    """How the model is trained: AdamW, a short warm-up, then flat, then linearly down.

    The last, falling half matters: at a constant rate about one working step in fifty stays wrong.
    """

    steps: int = 5000
    documents_per_step: int = 32
    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup_steps: int = 100
    flat_share: float = 0.5  # of the steps, warm-up included
    last_rate: float = 0.02  # of the learning rate
    seed: int = 0


class NextTokenBatch(NamedTuple):
    """Token ids and next-token labels, both (documents, tokens); padding is labelled IGNORED."""

    input_ids: Tensor
    labels: Tensor


class TrainingSummary(NamedTuple):
    """Training tokens, and the mean loss of the last 100 steps in nats per token."""

    tokens: int
    loss: float


def new_base_model(
    config: BaseModelConfig, tokenizer: PreTrainedTokenizerBase, *, seed: int
) -> MistralForCausalLM:
    """A randomly initialised model with an embedding for every token, appended ones included."""
    torch.manual_seed(seed)
    shape = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        intermediate_size=config.intermediate,
        max_position_embeddings=config.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        sliding_window=None,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return MistralForCausalLM(shape)


def next_token_batch(rows: list[list[int]], padding: int) -> NextTokenBatch:
    """Pad rows on the right. With a causal mask no real token attends to the padding."""
    longest = max(map(len, rows))
    input_ids = torch.full((len(rows), longest), padding)
    labels = torch.full((len(rows), longest), IGNORED)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = torch.tensor(row)
        labels[index, : len(row) - 1] = torch.tensor(row[1:])
    return NextTokenBatch(input_ids, labels)


def batches(
    documents: Iterator[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    size: int,
    seed: int,
    pool: int = 32,
) -> Iterator[NextTokenBatch]:
    """Yield batches of documents of similar length, without end.

    Documents are sorted within a pool of `pool` batches, so that little is padding; the batches of
    a pool come in random order.
    """
    rng = random.Random(seed)
    eos, padding = tokenizer.eos_token_id, tokenizer.pad_token_id
    while True:
        texts = list(itertools.islice(documents, size * pool))
        rows = sorted(([*ids, eos] for ids in tokenizer(texts)["input_ids"]), key=len)
        cut = [rows[start : start + size] for start in range(0, len(rows), size)]
        rng.shuffle(cut)
        yield from (next_token_batch(rows, padding) for rows in cut)


def rate_factor(step: int, training: BaseModelTraining) -> float:
    """The learning rate of a step (counted from 0) as a share of the full one."""
    if step < training.warmup_steps:
        return (step + 1) / training.warmup_steps
    flat_until = training.steps * training.flat_share
    fallen = max(0.0, (step - flat_until) / max(1.0, training.steps - flat_until))
    return 1 - (1 - training.last_rate) * fallen


def next_token_loss(model: MistralForCausalLM, batch: NextTokenBatch) -> Tensor:
    """Mean cross-entropy in nats over all tokens that are not padding."""
    logits = model(input_ids=batch.input_ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED
    )


def new_optimizer(model: MistralForCausalLM, training: BaseModelTraining) -> torch.optim.AdamW:
    """AdamW over all parameters."""
    return torch.optim.AdamW(
        model.parameters(),
        lr=training.learning_rate,
        betas=training.betas,
        weight_decay=training.weight_decay,
        fused=True,
    )


def train_base_model(
    model: MistralForCausalLM, stream: Iterator[NextTokenBatch], training: BaseModelTraining
) -> TrainingSummary:
    """Train in place, with a progress bar; leaves the model in evaluation mode."""
    optimizer = new_optimizer(model, training)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: rate_factor(s, training))
    losses: deque[float] = deque(maxlen=100)
    tokens = 0
    model.train()
    with tqdm(total=training.steps, desc="base model", unit="step") as bar:
        for batch in itertools.islice(stream, training.steps):
            loss = next_token_loss(model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            tokens += int((batch.labels != IGNORED).sum())
            rate = tokens / max(1e-9, bar.format_dict["elapsed"])
            bar.set_postfix(loss=f"{mean(losses):.3f}", tokens_per_s=f"{rate:.0f}", refresh=False)
            bar.update()
    model.eval()
    return TrainingSummary(tokens, mean(losses))
