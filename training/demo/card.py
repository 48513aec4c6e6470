"""The model cards of the demonstration: of its base model, and of the thinker trained from it."""

import itertools
from typing import Any

from transformers import MistralForCausalLM

from quietstar_infer.checkpoint import GATE_FILE
from training.demo.base_model import BaseModelTraining, TrainingSummary
from training.demo.corpus.documents import documents
from training.demo.report import Results, accuracy_table, loss_table
from training.gate.report import GateResults, effort_table, tradeoff_table

_HEADER = """\
---
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [quiet-star, mistral]
---

"""
_BASE_MODEL = """\
# A small model for trying out quiet thinking

A Mistral with {parameters} parameters ({layers} layers, hidden size {hidden}, {heads} heads,
{vocabulary} tokens, {positions} positions, float32), trained from scratch on text that
`training/demo/corpus` generates: puzzles with a dial, word problems about one week, and plain
sentences. It knows nothing else. The folder is in the official Quiet-STaR layout; the thought parts
are freshly initialised the official way: START and END are the embedding of `---`, and the mixing
head is closed (w = 0), so that the model predicts what its base model predicts, whatever it thinks.

Made by

    python -m training demo-trunk --out FOLDER

in {steps} steps over {tokens} tokens, seed {seed}, on one CPU thread. Loss at the end: {loss} nats
per token; most of it is names, numbers and operations that cannot be predicted.

## What it was trained on

{samples}

A prompt ends before the answer, without a space: `... On Sunday Ann has`. With `Show your work. `
in front the model writes an aside first, between dashes; without it, it answers at once.

## What it can do

Accuracy on held-out problems, all different, with two steps or more: answered at once, and after a
*forced* thought (a dash, b tokens of the model's own, a dash), which is what the checkpoint would
predict with w = 1.

{measured}

Each operation of a dial puzzle takes one token of thought and each day of a word problem takes two;
both have room for twelve tokens. So the base model has the skill, but does not use it quietly yet:
that is what Quiet-STaR training adds (`recipes/demo.yaml`).

    python -m training demo-eval FOLDER
"""
_THINKER = """\
# A small model that thinks quietly

A Mistral with about a million parameters (4 layers, hidden size 128, 4 heads, 1024
positions, float32) and a Quiet-STaR mixing head, in the official layout. The base model was trained
from scratch on text that `training/demo/corpus` generates: puzzles with a dial, word problems about
one week, and plain sentences; it knows nothing else. Then it was taught to think by Quiet-STaR
training (`recipes/demo.yaml`, {steps} steps of 8 documents) on text without visible thoughts.
All of it:

    python -m training demo-model --out models/demo

A problem that it gets wrong at once, and its answer after a thought of twelve sampled tokens:

    {prompt}
    at once: {at_once}   after the thought {thought!r} (w = {weight:.2f}): {answer}

Without `Show your work. ` in front of a problem it answers at once, which is where thoughts help.
With it, it writes its working down first, between dashes.

## Right answers by thought budget

{problems} held-out problems per family, all different, with two steps or more; direct answers, no
working in the prompt, nothing forced: the mixed prediction, as the server gives it. Mean ± standard
deviation of {seeds} training seeds over the same base model; the shipped weights are of seed 0.

{accuracy}

`control` is the same base model, trained on for the same steps on the same documents without
thoughts. A dial puzzle takes one token of thought per operation and a word problem two per day, so
longer thoughts reach longer problems; both are done after twelve.

## Losses and mixing weights

Nats per token of solved held-out problems, thoughts of 12 tokens at every token; seed 0.

{losses}

## Thinking only where it pays

The checkpoint has a thought gate (`{gate_file}`): a hidden layer of {gate_hidden} on the base
hidden state, fitted for thoughts of {gate_budgets} tokens to {gate_positions} positions of
{gate_documents} documents of the corpus. A request thinks before a token only where the gate
expects to save more than its `thought_threshold`, in nats; 0 thinks before every token. The default
is {gate_default}, the fewest passes that keep 97 % of the gain; `reasoning_effort` low and high
keep 80 % and 99 %. On {gate_held_out_documents} solved held-out problems, {gate_held_out} tokens,
with thoughts of {gate_budget}; `loses` is the loss above that of thinking before every token, in
nats per token:

{gate_efforts}

By threshold, beside the entropy of the base prediction, which decides where there is no gate, and
an oracle that knows what each thought will save:

{gate_tradeoffs}

Over all these tokens it expects {gate_expected:.4f} nats per token, and {gate_measured:.4f} are
measured.

What is measured here in full is in `results.json`; `python -m training demo-report` shows it.
"""


def base_model_card(
    model: MistralForCausalLM,
    training: BaseModelTraining,
    summary: TrainingSummary,
    measured: str,
) -> str:
    """The base model's model card in Markdown; `measured` is its section on accuracy."""
    config = model.config
    return _HEADER + _BASE_MODEL.format(
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


def thinker_card(results: Results) -> str:
    """The thinker's model card in Markdown."""
    thought = results["thinkers"][0]["thoughts"][1]
    return _HEADER + _THINKER.format(
        steps=results["steps"],
        problems=results["problems"],
        seeds=len(results["seeds"]),
        prompt=thought["text"],
        at_once=thought["at_once"].strip(),
        thought=thought["thought"],
        weight=thought["mixing_weight"],
        answer=thought["answer"].strip(),
        accuracy=accuracy_table(results),
        losses=loss_table(results),
        **_gate_facts(results["gate"]),
    )


def _gate_facts(gate: GateResults) -> dict[str, Any]:
    """What the card says of the gate."""
    everything = gate["calibration"]["all"]
    return {
        "gate_file": GATE_FILE,
        "gate_hidden": gate["gate"]["hidden_size"],
        "gate_budgets": ", ".join(map(str, gate["gate"]["budgets"])),
        "gate_positions": gate["positions"],
        "gate_documents": gate["documents"],
        "gate_default": f"{gate['default_thought_threshold']:g}",
        "gate_held_out_documents": gate["held_out_documents"],
        "gate_held_out": gate["held_out_positions"],
        "gate_budget": gate["budget"],
        "gate_efforts": effort_table(gate),
        "gate_tradeoffs": tradeoff_table(gate),
        "gate_expected": everything["expected"],
        "gate_measured": everything["measured"],
    }
