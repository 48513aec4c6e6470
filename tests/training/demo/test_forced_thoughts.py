"""Accuracy after forced thoughts, with a fake model that is right once its thought is complete."""

import itertools
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quietstar_infer.config import DASH, END_TOKEN, START_TOKEN
from training.demo.corpus.documents import FAMILIES, FILLER, documents
from training.demo.corpus.problems import Problem, held_out_problems
from training.demo.forced_thoughts import Evaluation, count_right, sampled_tokens, token_id
from training.demo.report import family_table
from training.demo.tokenizer import build_tokenizer
from training.errors import UsageError

WRONG = "."


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    texts = itertools.islice(documents(0), 3000)
    return build_tokenizer(texts, extra_tokens=(START_TOKEN, END_TOKEN), max_length=1024)


class Oracle:
    """Thinks the problem's working, and answers rightly if the aside contains enough of it.

    Its likeliest token is a meta-token in a thought and the dash as an answer, which the evaluation
    must leave out.
    """

    def __init__(self, problems: list[Problem], tokenizer: PreTrainedTokenizerBase) -> None:
        self.problems = {problem.prompt: problem for problem in problems}
        self.tokenizer = tokenizer
        self.read: Tensor | None = None

    def next_piece(self, text: str) -> str:
        prompt, *aside = text.split(DASH)
        problem = self.problems[prompt]
        thought = self.tokenizer.tokenize(aside[0]) if aside else []
        if len(aside) == 1:
            return (*problem.working, *[FILLER] * 20)[len(thought)]
        return problem.answer if len(thought) >= problem.done else WRONG

    def __call__(self, input_ids: Tensor, past_key_values: object = None) -> SimpleNamespace:
        if past_key_values is not None:
            is_prompt = input_ids.shape[1] > 1
            known = input_ids[:, :0] if is_prompt or self.read is None else self.read
            input_ids = self.read = torch.cat([known, input_ids], dim=1)
        logits = torch.zeros(*input_ids.shape, len(self.tokenizer))
        for row, ids in enumerate(input_ids):
            text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
            tempting = (START_TOKEN, END_TOKEN) if text.count(DASH) == 1 else (DASH,)
            for token in tempting:
                logits[row, -1, token_id(self.tokenizer, token)] = 9.0
            logits[row, -1, token_id(self.tokenizer, self.next_piece(text))] = 5.0
        return SimpleNamespace(logits=logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_right_answers_by_budget(tokenizer: PreTrainedTokenizerBase, family: str) -> None:
    problems = list(itertools.islice(held_out_problems(FAMILIES[family], seed=1), 30))
    model = cast(PreTrainedModel, Oracle(problems, tokenizer))
    evaluation = Evaluation(budgets=(0, 2, 4, 8, 12, 16))
    right = count_right(model, tokenizer, problems, evaluation)
    expected = {b: sum(p.done <= b for p in problems) for b in (2, 4, 8, 12, 16)}
    assert right == {0: 0} | expected
    assert right[12] == 30


def test_choice_of_thought_tokens() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0]]).repeat(4000, 1)
    generator = torch.Generator().manual_seed(0)
    assert (sampled_tokens(logits, 0.0, generator) == 1).all()
    sampled = sampled_tokens(logits, 1.0, generator)
    assert sampled.shape == (4000, 1)
    shares = torch.bincount(sampled.flatten(), minlength=3) / 4000
    torch.testing.assert_close(shares, torch.softmax(logits[0], -1), atol=0.03, rtol=0)


def test_a_word_in_pieces_is_an_error(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UsageError, match="should be one"):
        token_id(tokenizer, "photosynthesis")


def test_table() -> None:
    assert family_table({"dial": {0: 0.1, 4: 0.5}, "story": {0: 0.25, 4: 1.0}}).splitlines() == [
        "| family | direct | b=4 |",
        "| --- | ---: | ---: |",
        "| dial | 10.0 % | 50.0 % |",
        "| story | 25.0 % | 100.0 % |",
    ]
