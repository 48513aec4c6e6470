"""The demonstration model, from nothing: corpus, tokenizer, trunk, checkpoint, model card."""

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from transformers import MistralForCausalLM, PreTrainedTokenizerBase

from quietstar_infer.config import DASH, END_TOKEN, START_TOKEN
from training.demo.card import trunk_card
from training.trainer.checkpoint import ThoughtFacts, initial_thought_tensors, write_checkpoint
from training.demo.corpus.documents import documents
from training.demo.forced_thoughts import Evaluation, accuracy_table, markdown
from training.demo.corpus.problems import LONGEST_WORKING
from training.demo.tokenizer import build_tokenizer
from training.demo.base_model import (
    TrainingSummary,
    TrunkConfig,
    TrunkTraining,
    batches,
    new_trunk,
    train_trunk,
)

TRAINED_ON = "a generated corpus of dial puzzles, word problems and plain sentences (training/)"
EXAMPLE_PROMPT = (
    "Ben has 7 apples. On Monday he finds 5. On Tuesday he sells half. On Wednesday he triples "
    "them. On Thursday he eats 8. On Friday he keeps all. On Saturday he keeps all. On Sunday "
    "Ben has"
)


@dataclass(frozen=True)
class DemoRecipe:
    """Everything that decides what the demonstration model becomes."""

    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    training: TrunkTraining = field(default_factory=TrunkTraining)
    tokenizer_documents: int = 20_000
    evaluation: Evaluation = field(default_factory=Evaluation)


def demo_tokenizer(recipe: DemoRecipe) -> PreTrainedTokenizerBase:
    """The tokenizer, trained on its own stretch of the corpus."""
    texts = itertools.islice(documents(recipe.training.seed), recipe.tokenizer_documents)
    return build_tokenizer(
        texts,
        extra_tokens=(START_TOKEN, END_TOKEN),
        max_length=recipe.trunk.max_positions,
    )


def demo_trunk(
    recipe: DemoRecipe, tokenizer: PreTrainedTokenizerBase
) -> tuple[MistralForCausalLM, TrainingSummary]:
    """Train the trunk. On one thread: the same seed then gives the same weights."""
    torch.set_num_threads(1)
    training = recipe.training
    model = new_trunk(recipe.trunk, tokenizer, seed=training.seed)
    stream = batches(
        documents(training.seed),
        tokenizer,
        size=training.documents_per_step,
        seed=training.seed,
    )
    return model, train_trunk(model, stream, training)


def build_demo(recipe: DemoRecipe, folder: Path) -> str:
    """Make the demonstration model in `folder`; its measured accuracy, as text."""
    tokenizer = demo_tokenizer(recipe)
    model, summary = demo_trunk(recipe, tokenizer)
    facts = ThoughtFacts(
        default_thought_budget=LONGEST_WORKING,
        trained_on=TRAINED_ON,
        example_prompt=EXAMPLE_PROMPT,
    )
    table_VH = model.state_dict()["model.embed_tokens.weight"]
    dash = tokenizer.encode(DASH, add_special_tokens=False)[0]
    thought = initial_thought_tensors(table_VH, dash, seed=recipe.training.seed)
    write_checkpoint(folder, model, tokenizer, facts, thought)
    measured = measure(model, tokenizer, recipe.evaluation)
    card = trunk_card(model, recipe.training, summary, measured)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return measured


def measure(
    model: MistralForCausalLM, tokenizer: PreTrainedTokenizerBase, evaluation: Evaluation
) -> str:
    """Accuracy by budget as text with Markdown tables: with greedy thoughts and with sampled."""
    greedy, sampled = (
        markdown(accuracy_table(model, tokenizer, replace(evaluation, temperature=temperature)))
        for temperature in (0.0, 1.0)
    )
    return (
        f"Thoughts written greedily, {evaluation.problems} problems per family:\n\n{greedy}\n\n"
        f"Thoughts sampled at temperature 1:\n\n{sampled}"
    )
