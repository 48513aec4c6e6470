"""Builds the demonstration's base model: corpus, tokenizer, model, checkpoint, model card."""

import itertools
from dataclasses import replace
from pathlib import Path

import torch
from transformers import MistralForCausalLM, PreTrainedTokenizerBase

from quietstar_infer.config import DASH, END_TOKEN, START_TOKEN
from training.demo.base_model import TrainingSummary, batches, new_base_model, train_base_model
from training.demo.card import base_model_card
from training.demo.checkpoint import write_checkpoint
from training.demo.corpus.documents import documents
from training.demo.corpus.problems import LONGEST_WORKING
from training.demo.forced_thoughts import Evaluation, forced_accuracy
from training.demo.recipe import BaseModelRecipe
from training.demo.report import family_table
from training.demo.tokenizer import build_tokenizer
from training.thoughts.weights import initial_thought_tensors
from training.trainer.checkpoint import ThoughtFacts

TRAINED_ON = "a generated corpus of dial puzzles, word problems and plain sentences (training/)"
EXAMPLE_PROMPT = (
    "Ben has 7 apples. On Monday he finds 5. On Tuesday he sells half. On Wednesday he triples "
    "them. On Thursday he eats 8. On Friday he keeps all. On Saturday he keeps all. On Sunday "
    "Ben has"
)


def build_base_model(recipe: BaseModelRecipe, folder: Path) -> str:
    """Make the base model in `folder`, a checkpoint with new thought parts; its measured accuracy,
    as text.
    """
    tokenizer = demo_tokenizer(recipe)
    model, summary = demo_base_model(recipe, tokenizer)
    facts = ThoughtFacts(
        default_thought_budget=LONGEST_WORKING,
        trained_on=TRAINED_ON,
        example_prompt=EXAMPLE_PROMPT,
    )
    table_VH = model.state_dict()["model.embed_tokens.weight"]
    dash = tokenizer.encode(DASH, add_special_tokens=False)[0]
    thought = initial_thought_tensors(table_VH, dash, seed=recipe.training.seed)
    write_checkpoint(folder, model, tokenizer, facts, thought)
    measured = _measured(model, tokenizer, recipe.evaluation)
    card = base_model_card(model, recipe.training, summary, measured)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return measured


def demo_tokenizer(recipe: BaseModelRecipe) -> PreTrainedTokenizerBase:
    """The tokenizer, trained on documents of the corpus."""
    texts = itertools.islice(documents(recipe.training.seed), recipe.tokenizer_documents)
    return build_tokenizer(
        texts,
        extra_tokens=(START_TOKEN, END_TOKEN),
        max_length=recipe.model.max_positions,
    )


def demo_base_model(
    recipe: BaseModelRecipe, tokenizer: PreTrainedTokenizerBase
) -> tuple[MistralForCausalLM, TrainingSummary]:
    """Train the base model. On one thread: the same seed then gives the same weights."""
    torch.set_num_threads(1)
    training = recipe.training
    model = new_base_model(recipe.model, tokenizer, seed=training.seed)
    stream = batches(
        documents(training.seed),
        tokenizer,
        size=training.documents_per_step,
        seed=training.seed,
    )
    return model, train_base_model(model, stream, training)


def _measured(
    model: MistralForCausalLM, tokenizer: PreTrainedTokenizerBase, evaluation: Evaluation
) -> str:
    """Accuracy by budget as text with Markdown tables: with greedy thoughts and with sampled."""
    greedy, sampled = (
        family_table(
            forced_accuracy(model, tokenizer, replace(evaluation, temperature=temperature))
        )
        for temperature in (0.0, 1.0)
    )
    return (
        f"Thoughts written greedily, {evaluation.problems} problems per family:\n\n{greedy}\n\n"
        f"Thoughts sampled at temperature 1:\n\n{sampled}"
    )
