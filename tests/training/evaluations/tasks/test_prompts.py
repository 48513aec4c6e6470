"""How questions are put: after examples, and as a chat."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from quietstar_infer.config import load_tokenizer
from training.errors import UsageError
from training.evaluations.tasks.definitions import TextTask, load_task
from training.evaluations.tasks.passages import Item, item_maker
from training.evaluations.tasks.prompts import Example, PromptFormat

DEMO = Path(__file__).parents[4] / "models" / "demo"
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
NUMBER = {"question": "How many?", "answer": "6 / 2 = 3\n#### 3"}
OTHER = {"question": "And now?", "answer": "3 + 1 = 4\n#### 4"}
CHOICE = {
    "question": "Where?",
    "choices": {"label": ["A", "B"], "text": ["home", "school"]},
    "answerKey": "B",
}


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    found = load_tokenizer(DEMO)
    found.chat_template = TEMPLATE
    return found


def example(name: str, row: Mapping[str, Any]) -> Example:
    _, task = load_task(name)
    assert not isinstance(task, TextTask)
    return task.example(row)


def item(name: str, row: Mapping[str, Any], form: PromptFormat, tokenizer: Any) -> Item:
    _, task = load_task(name)
    assert task.kind != "chain"
    return item_maker(task, tokenizer, 100, form)(row)


def test_examples_have_the_right_answer() -> None:
    assert example("gsm8k", NUMBER) == ("Q: How many?\nA:", " 3\n")
    asked = "Q: Where?\n(A) home\n(B) school\nA:"
    assert example("commonsense-qa", CHOICE) == (asked, " B\n")
    assert example("demo-choices", CHOICE) == ("Where?", " school")
    assert example("gsm8k-chain", NUMBER) == (
        "Q: How many?\nA: Let's think step by step.",
        " 6 / 2 = 3\nTherefore, the answer (arabic numerals) is 3",
    )
    assert example("demo-chain", NUMBER) == ("Show your work. How many?", " 6 / 2 = 3 3")


def test_examples_stand_before_the_question(tokenizer: PreTrainedTokenizerBase) -> None:
    """As lm-evaluation-harness joins them: an empty line behind each."""
    form = PromptFormat(examples=(example("gsm8k", OTHER), example("gsm8k", NUMBER)))
    before = "Q: And now?\nA: 4\n\nQ: How many?\nA: 3\n\n"
    assert form.prompt("Q: Why?\nA:", tokenizer) == f"{before}Q: Why?\nA:"
    (passage,) = item("gsm8k", NUMBER, form, tokenizer).passages
    (alone,) = item("gsm8k", NUMBER, PromptFormat(), tokenizer).passages
    assert passage.ids[: passage.start] == tokenizer.encode(f"{before}Q: How many?\nA:")
    assert passage.ids[passage.start :] == alone.ids[alone.start :]
    assert passage.allowed == alone.allowed


def test_a_chat_is_what_the_template_writes(tokenizer: PreTrainedTokenizerBase) -> None:
    form = PromptFormat("bos", examples=(example("gsm8k", OTHER),), chat=True)
    prompt = "user: Q: And now?\nA:</s>\nassistant: 4</s>\nuser: Q: How many?\nA:</s>\nassistant: "
    assert form.prompt("Q: How many?\nA:", tokenizer) == prompt
    (passage,) = item("gsm8k", NUMBER, form, tokenizer).passages
    # Nothing stands before what the template writes; what it ends an answer with is scored.
    assert passage.ids == tokenizer.encode(f"{prompt}3</s>", add_special_tokens=False)
    scored = passage.ids[passage.start :]
    assert str(tokenizer.decode(scored)).split("</s>")[0].strip() == "3"
    assert scored[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id in passage.allowed
    right = item("demo-choices", CHOICE, form, tokenizer).passages[1]
    assert "".join(str(tokenizer.decode(right.ids[right.start :])).split()) == "school"


def test_a_chat_needs_a_template(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = None
    with pytest.raises(UsageError, match="--chat: a question is a chat, but the model's tokenizer"):
        PromptFormat(chat=True).prompt("Why?", tokenizer)
