"""What stands before a text, by tokenizers of different habits."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from quietstar_infer.config import load_tokenizer
from tests.support.checkpoints import TOKENIZER
from training.beginning import beginning_ids, text_ids

DEMO = Path(__file__).parents[2] / "models" / "demo"
BOTH_ENDS = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "</s>", "type_id": 0}},
    ],
    "pair": [],
    "special_tokens": {
        "<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
        "</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]},
    },
}


def tokenizer_with(folder: Path, post_processor: Any) -> PreTrainedTokenizerBase:
    shutil.copytree(DEMO, folder / "model")
    file = folder / "model" / "tokenizer.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"post_processor": post_processor}))
    return load_tokenizer(folder / "model")


@pytest.mark.parametrize(
    ("post_processor", "own"), [(None, []), (BOTH_ENDS, [0])], ids=["none", "both ends"]
)
def test_rules(tmp_path: Path, post_processor: Any, own: list[int]) -> None:
    tokenizer = tokenizer_with(tmp_path, post_processor)
    assert beginning_ids(tokenizer, "tokenizer") == own
    assert beginning_ids(tokenizer, "bos") == [0]
    assert beginning_ids(tokenizer, "nothing") == []
    text = tokenizer.encode("Ann has", add_special_tokens=False)
    assert text_ids(tokenizer, "Ann has") == own + text
    assert text_ids(tokenizer, "Ann has", "bos") == [0, *text]


def test_without_a_beginning_of_text_token_the_end_of_text_token_stands_there(
    tmp_path: Path,
) -> None:
    tokenizer = tokenizer_with(tmp_path, None)
    tokenizer.bos_token = None
    assert beginning_ids(tokenizer, "bos") == [1]


def test_a_tokenizer_to_which_the_probe_is_unknown() -> None:
    tokenizer = load_tokenizer(TOKENIZER)
    assert beginning_ids(tokenizer, "tokenizer") == []
