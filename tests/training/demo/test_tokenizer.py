"""The tokenizer: lossless, and every word of the corpus is one token."""

import itertools
import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from quietstar_infer.config import DASH, END_TOKEN, START_TOKEN
from tests.support.servers import DEMO
from training.demo.corpus.documents import FAMILIES, FILLER, documents
from training.demo.corpus.problems import held_out_problems
from training.demo.tokenizer import BOS, CHAT_TEMPLATE, EOS, build_tokenizer
from training.trainer.checkpoint import write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """The tokenizer as it comes back from disk."""
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    texts = itertools.islice(documents(0), 5000)
    built = build_tokenizer(texts, extra_tokens=(START_TOKEN, END_TOKEN), max_length=1024)
    write_tokenizer(built, folder)
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return loaded


def test_a_chat_is_the_text_of_its_messages(tokenizer: PreTrainedTokenizerBase) -> None:
    """In the demonstration as well as in what the recipe makes."""
    messages = [
        {"role": "system", "content": "Ann has 3 apples."},
        {"role": "user", "content": " Now Ann has"},
    ]
    for found in (tokenizer, AutoTokenizer.from_pretrained(DEMO)):
        ids = found.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert ids == found.encode("Ann has 3 apples. Now Ann has")
        assert found.chat_template == CHAT_TEMPLATE


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Ann has 3 apples.",
        "Now it shows--- 7 Monday ... ...--- 4 apples.",
        "--- ---- -- - ...---... .---",
        "  two  spaces \n\n and\ttabs ",
        "12345 + 67 = 890, isn't it?",
        "naïve “quotes” £9 中文 😀\u200d🚀 <b>",
        "\x00\x7f\r\n",
    ],
)
def test_round_trip(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_round_trip_of_the_corpus(tokenizer: PreTrainedTokenizerBase) -> None:
    for text in itertools.islice(documents(11), 500):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_every_word_is_one_token(tokenizer: PreTrainedTokenizerBase) -> None:
    for text in itertools.islice(documents(12), 2000):
        words = re.findall(r"\w+|---|\.+|:", text)
        pieces = [tokenizer.convert_tokens_to_string([t]) for t in tokenizer.tokenize(text)]
        assert [piece.strip() for piece in pieces] == words


@pytest.mark.parametrize("family", FAMILIES)
def test_working_is_one_token_per_piece(tokenizer: PreTrainedTokenizerBase, family: str) -> None:
    for problem in itertools.islice(held_out_problems(FAMILIES[family], seed=2), 100):
        for piece in (*problem.working, problem.answer, FILLER):
            assert len(tokenizer.encode(piece, add_special_tokens=False)) == 1
        # The prompt's tokens stay the same when the answer or a dash follows.
        prompt = tokenizer.encode(problem.prompt)
        for follower in (problem.answer, DASH):
            assert tokenizer.encode(problem.prompt + follower)[:-1] == prompt


def test_the_dash_is_one_token_everywhere(tokenizer: PreTrainedTokenizerBase) -> None:
    (dash,) = tokenizer.encode(DASH, add_special_tokens=False)
    for text in ("has--- 7", "...--- 4", "--- ", "has---"):
        assert dash in tokenizer.encode(text)


def test_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    size = len(tokenizer)
    meta = [START_TOKEN, END_TOKEN]
    assert tokenizer.convert_tokens_to_ids(meta) == [size - 2, size - 1]
    # The official evaluation masks every id from `vocab_size` up.
    assert tokenizer.vocab_size == size - 2
    assert set(meta) <= set(tokenizer.all_special_tokens)
    assert tokenizer.convert_tokens_to_ids([BOS, EOS]) == [0, 1]
    assert tokenizer.decode(tokenizer.convert_tokens_to_ids(meta), skip_special_tokens=True) == ""
