"""Rows as passages: what is asked, which tokens count, for tokenizers of different habits."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mistral_common
import pytest
from transformers import PreTrainedTokenizerBase

from quietstar_infer.config import load_tokenizer
from training.config import Beginning
from training.errors import UsageError
from training.evaluations.tasks.definitions import ChainTask, TextTask, load_task
from training.evaluations.tasks.passages import Item, Passage, answer_passage, item_maker
from training.evaluations.tasks.prompts import PromptFormat

DEMO = Path(__file__).parents[4] / "models" / "demo"
# `valid_number_tokens` and `valid_letter_tokens` of the official code, 13 being the newline.
OFFICIAL_NUMBERS = {28740, 28750, 28770, 28781, 28782, 28784, 28787, 28783, 28774, 28734, 13}
OFFICIAL_LETTERS = {330, 365, 334, 384, 413, 13}
GSM8K = {"question": "How many?", "answer": "2000 / 2 = 1000.\n#### 1,000"}
COMMONSENSE = {
    "question": "Where?",
    "choices": {"label": ["A", "B", "C", "D", "E"], "text": ["in", "on", "by", "at", "off"]},
    "answerKey": "D",
}


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """Mistral's own tokenizer, which a dependency of vLLM brings along."""
    folder: Path = tmp_path_factory.mktemp("mistral")
    model = Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1"
    shutil.copy(model, folder / "tokenizer.model")
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "mistral"}))
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def demo() -> PreTrainedTokenizerBase:
    return load_tokenizer(DEMO)


@pytest.fixture
def plain(tmp_path: Path) -> PreTrainedTokenizerBase:
    """The demonstration's, but it puts nothing before a text."""
    shutil.copytree(DEMO, tmp_path / "plain")
    file = tmp_path / "plain" / "tokenizer.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"post_processor": None}))
    return load_tokenizer(tmp_path / "plain")


def make(name: str, tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any]) -> Item:
    _, task = load_task(name)
    assert not isinstance(task, ChainTask)
    return item_maker(task, tokenizer, 1024)(row)


def words(tokenizer: PreTrainedTokenizerBase, ids: list[int] | tuple[int, ...]) -> list[str]:
    return [str(tokenizer.convert_ids_to_tokens(id_)) for id_ in ids]


def test_a_number_counts_among_the_official_tokens(mistral: PreTrainedTokenizerBase) -> None:
    (passage,) = make("gsm8k", mistral, GSM8K).passages
    assert words(mistral, passage.ids[passage.start :]) == [*"▁1,000", "<0x0A>"]
    assert set(passage.allowed) == OFFICIAL_NUMBERS


def test_a_letter_counts_among_the_official_tokens(mistral: PreTrainedTokenizerBase) -> None:
    (passage,) = make("commonsense-qa", mistral, COMMONSENSE).passages
    assert words(mistral, passage.ids[passage.start :]) == ["▁D", "<0x0A>"]
    assert set(passage.allowed) == OFFICIAL_LETTERS


def test_numbers_and_letters_of_another_tokenizer(demo: PreTrainedTokenizerBase) -> None:
    """Numbers with their space, letters without."""
    (number,) = make("demo-numbers", demo, {"question": "Ann has", "answer": "#### 12"}).passages
    assert words(demo, number.ids[number.start :]) == ["Ġ12"]
    allowed = words(demo, number.allowed)
    assert {"Ġ12", "Ġ0", "7"} <= set(allowed)
    assert all(token.strip("Ġ").isdigit() for token in allowed)
    (letter,) = make("demo-letters", demo, COMMONSENSE).passages
    assert sorted(words(demo, letter.allowed)) == ["A", "B", "C", "D", "E", "Ċ"]


def test_a_number_in_words_counts_among_the_words(
    demo: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    task = tmp_path / "mine.yaml"
    task.write_text(
        'kind: number\ndata: {path: a}\nprompt: "{question}"\nanswer: " {answer}"\n'
        "words: [apples, pears, figs]\n"
    )
    row = {"question": "Ann has", "answer": "#### pears"}
    (passage,) = make(str(task), demo, row).passages
    assert words(demo, passage.ids[passage.start :]) == ["Ġpears"]
    assert {*words(demo, passage.allowed)} == {"Ġapples", "Ġpears", "Ġfigs"}


def test_labels_that_are_no_tokens_are_an_error(demo: PreTrainedTokenizerBase) -> None:
    row: dict[str, Any] = COMMONSENSE | {
        "choices": {"label": ["AB", "AC"], "text": ["in", "on"]},
        "answerKey": "AB",
    }
    item = make("demo-letters", demo, row)
    assert sorted(words(demo, item.passages[0].allowed)) == ["B", "C", "Ċ"]
    row["choices"] = {"label": ["AB", "AC", "B"], "text": ["in", "on", "by"]}
    with pytest.raises(UsageError, match="one token each"):
        make("demo-letters", demo, row)


def test_choices_are_passages(demo: PreTrainedTokenizerBase) -> None:
    row = {
        "question": "Ann has",
        "choices": {"label": ["A", "B"], "text": ["3", "12"]},
        "answerKey": "B",
    }
    item = make("demo-choices", demo, row)
    assert item.gold == 1
    assert [words(demo, p.ids[p.start :]) for p in item.passages] == [["Ġ3"], ["Ġ12"]]
    assert all(passage.allowed == () for passage in item.passages)


@pytest.mark.parametrize("space", [" ", "\n", "\t", " \n ", "\u00a0", "\u2003"])
def test_white_space_at_the_end_of_a_prompt_belongs_to_the_answer(
    mistral: PreTrainedTokenizerBase, demo: PreTrainedTokenizerBase, space: str
) -> None:
    """As lm-evaluation-harness splits it: no token of the answer is left out."""
    for tokenizer in (mistral, demo):
        passage = answer_passage(tokenizer, f"Ben finds:{space}", "12 apples")
        assert passage == answer_passage(tokenizer, "Ben finds:", f"{space}12 apples")
        assert passage.ids[: passage.start] == tokenizer.encode("Ben finds:")
        answer = str(tokenizer.decode(passage.ids[passage.start :]))
        assert answer.split() == ["12", "apples"]


def test_an_answer_without_a_token_of_its_own_is_an_error(demo: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UsageError, match="joins the end of the prompt, 'Ann has the di', with"):
        answer_passage(demo, "Ann has the di", "al")
    with pytest.raises(UsageError, match="the prompt is empty"):
        answer_passage(demo, " ", "Ann", PromptFormat("nothing"))


@pytest.mark.parametrize(("rule", "before"), [("tokenizer", []), ("bos", ["<s>"]), ("nothing", [])])
def test_what_stands_before_texts_is_one_rule(
    plain: PreTrainedTokenizerBase, rule: Beginning, before: list[str]
) -> None:
    """For questions and documents, and where a tokenizer has a token for it but does not use it, as
    a chat model's.
    """
    question = answer_passage(plain, "Ann has", " 12 apples", PromptFormat(rule))
    assert words(plain, question.ids) == [*before, "Ann", "Ġhas", "Ġ12", "Ġapples"]
    assert question.start == len(before) + 2
    _, task = load_task("demo-text")
    assert isinstance(task, TextTask)
    (document,) = item_maker(task, plain, 3, PromptFormat(rule))(
        {"text": "Ann has 3 apples."}
    ).passages
    assert words(plain, document.ids) == [*before, "Ann", "Ġhas", "Ġ3"]
    assert document.start == 1  # without a beginning nothing predicts the first token


def test_documents_are_cut(demo: PreTrainedTokenizerBase) -> None:
    _, task = load_task("demo-text")
    assert isinstance(task, TextTask)
    row = {"text": "Ann has 3 apples. Ben has 5."}
    (whole,) = item_maker(task, demo, 100)(row).passages
    assert whole == Passage(demo.encode(row["text"]), 1)
    cut = item_maker(task, demo, 4)(row)
    assert cut.passages[0].ids == whole.ids[:5]
    assert (cut.num_words, cut.num_bytes) == (4, len("Ann has 3 apples"))


@pytest.mark.parametrize(
    ("content", "words_of_error"),
    [
        ("kind: riddle\ndata: {path: a}", "kind: Input tag 'riddle'"),
        ("kind: number\ndata: {path: a}\nprompt: a", "answer: Field required"),
        ("kind: text\ndata: {path: a}\ncolum: b", "colum: "),
        ("kind: chain\ndata: {path: a}\nprompt: b\nvotes: 0", "votes is 0, expected 1 or more"),
        ("[", "cannot read"),
    ],
)
def test_a_wrong_task_is_one_line(tmp_path: Path, content: str, words_of_error: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(UsageError) as caught:
        load_task(str(path))
    assert words_of_error in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_task_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="no task gsm9k; there are commonsense-qa,"):
        load_task("gsm9k")
