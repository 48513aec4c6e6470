"""The documents of the corpus."""

import itertools
import random

from training.demo.corpus.documents import (
    FAMILIES,
    FILLER,
    CorpusConfig,
    aside,
    documents,
    documents_without_asides,
)
from training.demo.corpus.problems import (
    LONGEST_WORKING,
    held_out_problems,
)


def test_same_seed_same_documents() -> None:
    assert list(itertools.islice(documents(3), 50)) == list(itertools.islice(documents(3), 50))
    assert list(itertools.islice(documents(3), 50)) != list(itertools.islice(documents(4), 50))


def test_no_document_asks_a_held_out_problem() -> None:
    held_out = {
        problem.prompt.split(" ", 1)[1]
        for make in FAMILIES.values()
        for problem in itertools.islice(held_out_problems(make, seed=0), 1000)
    }
    for text in itertools.islice(documents(0), 1500):
        assert not any(prompt in text for prompt in held_out)


def test_asides() -> None:
    problem = FAMILIES["dial"](random.Random(7))
    whole = CorpusConfig(cut_anywhere=0, cut_when_done=0, full_filler=1, most_filler=2)
    expected = "---" + "".join(problem.working) + FILLER * 2 + "---"
    assert aside(problem, whole, random.Random(0)) == expected

    cut = CorpusConfig(cut_anywhere=0, cut_when_done=1)
    for number in range(100):
        pieces = aside(problem, cut, random.Random(number)).strip("-").split()
        assert problem.done <= len(pieces) <= LONGEST_WORKING
        assert f" {pieces[-1]}" == problem.answer


def test_a_corpus_without_visible_thoughts() -> None:
    texts = list(itertools.islice(documents_without_asides(1000), 300))
    assert not any("---" in text or "Show your work" in text for text in texts)
    assert sum("On Sunday" in text for text in texts) > 100


def test_the_shares_of_asides_dials_and_stories() -> None:
    texts = list(itertools.islice(documents(0), 2000))
    asides = sum("---" in text for text in texts) / len(texts)
    dials = sum("dial" in text for text in texts) / len(texts)
    stories = sum("On Sunday" in text for text in texts) / len(texts)
    assert 0.45 < asides < 0.65
    assert 0.2 < dials < 0.4
    assert 0.45 < stories < 0.65
