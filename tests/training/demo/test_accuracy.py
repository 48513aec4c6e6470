"""Answers after quiet thoughts: those of the reference decoder, counted."""

import itertools
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from quietstar_infer.config import load_tokenizer
from quietstar_infer.reference import ReferenceDecoder
from training.demo.accuracy import answer
from training.demo.corpus.documents import FAMILIES
from training.demo.corpus.problems import held_out_problems
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
