"""The evaluation of quiet thoughts: what the reference decoder says, counted."""

import itertools
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from quietstar_infer.config import load_tokenizer
from quietstar_infer.reference import ReferenceDecoder
from training.demo.accuracy import (
    KINDS,
    TokenFacts,
    answer,
    by_kind,
    quiet_scores,
    solved,
    thoughts_at,
    token_facts,
)
from training.demo.corpus.documents import FAMILIES
from training.demo.corpus.problems import held_out_problems
from training.demo.forced_thoughts import Evaluation
from training.thoughts.model import QuietThinker

FOLDER = Path(__file__).parents[3] / "models" / "demo"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(FOLDER)


@pytest.fixture(scope="module")
def thinker() -> QuietThinker:
    return QuietThinker.from_checkpoint(FOLDER)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_the_reference_decoders(
    thinker: QuietThinker, tokenizer: PreTrainedTokenizerBase, family: str
) -> None:
    reference = ReferenceDecoder.from_checkpoint(FOLDER)
    problem = next(held_out_problems(FAMILIES[family], seed=3))
    ids = tokenizer.encode(problem.prompt)
    generator = torch.Generator()
    answered = dict(answer(thinker, torch.tensor([ids]), (0, 2, 5), 0.0, generator))
    assert int(answered[0].ids) == int(reference.predict_plainly(ids).argmax())
    assert not answered[0].mixing_weight.any()
    for budget in (2, 5):
        expected = reference.predict(ids, budget)
        assert answered[budget].thought_ids.tolist() == [expected.thought_ids]
        assert float(answered[budget].mixing_weight) == pytest.approx(
            expected.mixing_weight, abs=1e-4
        )
        assert int(answered[budget].ids) == int(expected.logits_V.argmax())


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


def test_sampled_thoughts_repeat_with_their_seed(
    thinker: QuietThinker, tokenizer: PreTrainedTokenizerBase
) -> None:
    problems = itertools.islice(held_out_problems(FAMILIES["dial"], seed=3), 4)
    prompts = torch.tensor([tokenizer.encode(problem.prompt) for problem in problems])

    def thoughts(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return dict(answer(thinker, prompts, (12,), 2.0, generator))[12].thought_ids

    assert torch.equal(thoughts(1), thoughts(1))
    assert not torch.equal(thoughts(1), thoughts(2))
