"""Texts that are thought about."""

import json
from pathlib import Path

import pytest

from benchmarks.engine.measures.settings import Settings
from benchmarks.engine.measures.texts import Texts, always, groups, without_thoughts
from quietstar_infer.config import load_tokenizer
from quietstar_infer.errors import UnsupportedError
from tests.support.servers import DEMO, ROOT

ROWS = ROOT / "training/evaluations/tasks/demo-text.jsonl"


@pytest.fixture(scope="module")
def texts() -> Texts:
    return Texts.of(Settings(DEMO))


def test_documents_are_held_out_ones_all_different(texts: Texts) -> None:
    known = [json.loads(line)["text"] for line in ROWS.read_text().splitlines()]
    tokenizer = load_tokenizer(DEMO)
    found = texts.documents(400)
    assert len(set(found)) == 400
    for document, known_text in zip(found, known[1::2], strict=False):
        assert list(document.prompt + document.text) == tokenizer.encode(known_text)
        assert len(document.text) == document.tokens
        assert (document.budget, document.threshold) == (12, 0.04)
        assert document.temperature == 1.0


def test_an_answer_begins_where_its_question_ends(texts: Texts) -> None:
    tokenizer = load_tokenizer(DEMO)
    (answer,) = texts.answers(1)
    given = tokenizer.convert_ids_to_tokens(list(answer.text))
    # Times count from the first token on: the question's last.
    assert given[0].endswith("has")
    assert given[1][1:].isdigit()
    assert given[3:] == [".", tokenizer.eos_token]
    assert answer.tokens == 5


def test_batches_of_texts_with_and_without_thoughts(texts: Texts) -> None:
    found = texts.documents(5)
    assert [load.requests for load in groups(found, 2)] == [found[:2], found[2:4], found[4:]]
    assert {request.threshold for request in always(found)} == {0.0}
    assert {(request.budget, request.text) for request in without_thoughts(found)} == {(0, ())}


def test_texts_of_a_file_come_again_and_short_ones_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    lines = [json.dumps({"text": "Ann has 3 eggs. " * n}) + "\n" for n in (1, 20, 30)]
    file.write_text("".join(lines))
    found = Texts.of(Settings(DEMO, documents=file)).documents(4)
    assert found[:2] == found[2:]
    assert found[0] != found[1]
    file.write_text(lines[0])
    with pytest.raises(UnsupportedError, match="no text of 40 tokens or more"):
        Texts.of(Settings(DEMO, documents=file))
