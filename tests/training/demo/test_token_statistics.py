"""Losses and mixing weights by kind of token."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from quietstar_infer.config import load_tokenizer
from training.demo.accuracy import quiet_scores
from training.demo.forced_thoughts import Evaluation
from training.demo.token_statistics import (
    KINDS,
    TokenFacts,
    by_kind,
    solved,
    thoughts_at,
    token_facts,
)
from training.thoughts.model import QuietThinker

FOLDER = Path(__file__).parents[3] / "models" / "demo"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(FOLDER)


@pytest.fixture(scope="module")
def thinker() -> QuietThinker:
    return QuietThinker.from_checkpoint(FOLDER)


def test_token_facts_agree_with_answers(
    thinker: QuietThinker, tokenizer: PreTrainedTokenizerBase
) -> None:
    evaluation = Evaluation(problems=2, budgets=(0, 3))
    documents = solved(tokenizer, evaluation, 2)
    padding = tokenizer.pad_token_id
    facts = token_facts(thinker, thinker, documents, padding, 3, thoughts_at(0.0, 0))
    assert len(facts.kind) == sum(len(document.ids) - 1 for document in documents)
    scores = quiet_scores(thinker, tokenizer, evaluation)
    mean_weight = sum(by_budget[3].mixing_weight for by_budget in scores.values()) / 2
    kinds = by_kind(facts)
    assert kinds["answer"].tokens == 4
    assert kinds["answer"].mixing_weight == pytest.approx(mean_weight, abs=1e-4)
    assert kinds["easy"].base_nll < 0.1 < kinds["open"].base_nll
    assert kinds["all"].tokens == sum(kinds[kind].tokens for kind in KINDS)


def test_means_by_kind() -> None:
    facts = TokenFacts(
        kind=torch.tensor([0, 1, 2, 2]),
        base_nll=torch.tensor([4.0, 2.0, 0.0, 0.02]),
        nll=torch.tensor([1.0, 2.0, 0.0, 0.04]),
        mixing_weight=torch.tensor([0.9, 0.1, 0.0, 0.2]),
        repeated=torch.zeros(4),
    )
    kinds = by_kind(facts)
    assert kinds["answer"].nll == 1.0
    assert kinds["easy"].mixing_weight == pytest.approx(0.1)
    assert kinds["all"].tokens == 4
