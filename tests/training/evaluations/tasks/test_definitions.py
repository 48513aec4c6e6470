"""Definitions of tasks."""

from pathlib import Path

from training.evaluations.tasks.definitions import load_task, task_names

GSM8K = {"question": "How many?", "answer": "2000 / 2 = 1000.\n#### 1,000"}


COMMONSENSE = {
    "question": "Where?",
    "choices": {"label": ["A", "B", "C", "D", "E"], "text": ["in", "on", "by", "at", "off"]},
    "answerKey": "D",
}


def test_the_official_words() -> None:
    _, gsm8k = load_task("gsm8k")
    assert gsm8k.kind == "number"
    assert gsm8k.ask(GSM8K) + gsm8k.answer_text(GSM8K) == "Q: How many?\nA: 1,000\n"
    _, commonsense = load_task("commonsense-qa")
    assert commonsense.kind == "letter"
    assert commonsense.ask(COMMONSENSE) + commonsense.answer_text("D") == (
        "Q: Where?\n(A) in\n(B) on\n(C) by\n(D) at\n(E) off\nA: D\n"
    )
    _, chain = load_task("gsm8k-chain")
    assert chain.kind == "chain"
    assert chain.ask(GSM8K) == "Q: How many?\nA: Let's think step by step."
    assert (chain.votes, chain.temperature, chain.max_tokens) == (8, 0.9, 384)


def test_every_task_can_be_loaded() -> None:
    assert {"gsm8k", "gsm8k-chain", "commonsense-qa", "openwebmath"} <= set(task_names())
    for name in task_names():
        title, task = load_task(name)
        assert title == name
        assert task.columns
        path = Path(task.data.path)
        assert (path.is_absolute() and path.is_file()) == name.startswith("demo-")
