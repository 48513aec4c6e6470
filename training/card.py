"""The model card of the demonstration model."""

import itertools

from transformers import MistralForCausalLM

from training.corpus import documents
from training.trunk import TrainingSummary, TrunkTraining

CARD = """\
---
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [quiet-star, mistral]
---

# A small model for trying out quiet thinking

A Mistral with {parameters} parameters ({layers} layers, hidden size {hidden}, {heads} heads,
{vocabulary} tokens, {positions} positions, float32), trained from scratch on text that
`training/corpus.py` generates: puzzles with a dial, word problems about one week, and plain
sentences. It knows nothing else. The folder is in the official Quiet-STaR layout; the thought parts
are freshly initialised the official way: START and END are the embedding of `---`, and the mixing
head is closed (w = 0), so that whatever it thinks, it says what its trunk says.

Made by

    python -m training demo-trunk --out models/demo

in {steps} steps over {tokens} tokens, seed {seed}, on one CPU thread. Loss at the end: {loss} nats
per token; most of it is names, numbers and operations that nobody could guess.

## What it reads

{samples}

A prompt ends before the answer, without a space: `... On Sunday Ann has`. With `Show your work. `
in front the model writes an aside first, between dashes; without it, it answers at once.

## What it can do

Accuracy on held-out problems, all different, with two steps or more: answered at once, and after a
*forced* thought (a dash, b tokens of the model's own, a dash), which is what the checkpoint would
say with w = 1.

{measured}

Each operation of a dial puzzle takes one token of thought and each day of a word problem takes two;
both have room for twelve tokens. So the trunk has the skill, but does not use it quietly yet: that
is what Quiet-STaR training adds.

    python -m training demo-eval models/demo
"""


def model_card(
    model: MistralForCausalLM,
    training: TrunkTraining,
    summary: TrainingSummary,
    measured: str,
) -> str:
    """The model card in Markdown; `measured` is its section on accuracy."""
    config = model.config
    return CARD.format(
        parameters=f"{model.num_parameters() / 1e6:.2f} million",
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        vocabulary=config.vocab_size,
        positions=config.max_position_embeddings,
        steps=training.steps,
        tokens=f"{summary.tokens / 1e6:.1f} million",
        seed=training.seed,
        loss=f"{summary.loss:.3f}",
        samples="\n".join(f"    {text}" for text in itertools.islice(documents(training.seed), 6)),
        measured=measured,
    )
