"""Training text for a pretrained model: spelled word problems among paragraphs of real text.

The real text is the documentation that every Python brings along (of the language, in
`pydoc_data`, and of its modules, in their docstrings) and whatever files are given. Of its
paragraphs one in `HELD_OUT_SHARE` is held out, chosen by a hash of its text.
"""

import ast
import gzip
import hashlib
import itertools
import json
import pydoc_data.topics
import random
import re
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.demo.corpus.documents import CorpusConfig, problem_text
from training.demo.corpus.problems import (
    HELD_OUT_SHARE,
    Problem,
    draw_problem,
    held_out_problems,
)
from training.demo.corpus.spelled import NUMBERS, make_spelled

SHORTEST_PARAGRAPH = 120
"""Characters."""
HELD_OUT_SEED = 1
ANSWER_TOKENS = 4
"""Enough for a number word, a thing and the full stop."""
LABELS_OF_CHOICES = "ABCDE"
WORKED = CorpusConfig(
    cue=0.75,
    uncued_aside=0.15,
    cut_anywhere=0.03,
    cut_when_done=0.03,
    full_filler=0.3,
    most_filler=2,
    neighbour=0.0,
)
"""Most problems with their working."""
UNWORKED = replace(WORKED, cue=0.0, uncued_aside=0.0)
TextRow = dict[str, str]
"""`prompt` and `text`, which is what is learnt."""


def paragraphs(texts: Iterable[str]) -> Iterator[str]:
    """The paragraphs of running English, each on one line; tables, code and lists of terms are left
    out, and so are repetitions.
    """
    seen: set[str] = set()
    for text in texts:
        for block in re.split(r"\n\s*\n", text):
            line = " ".join(block.split())
            letters = sum(character.isalpha() or character == " " for character in line)
            if len(line) < SHORTEST_PARAGRAPH or letters < 0.93 * len(line) or line in seen:
                continue
            if line.endswith((".", ":", "!", "?")) and re.match(r"[A-Z*]", line):
                seen.add(line)
                yield line.removeprefix("* ")


def real_texts(files: Iterable[Path]) -> Iterator[str]:
    """Python's documentation, then the files, which may be compressed (`.gz`)."""
    yield from pydoc_data.topics.topics.values()
    for module in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*.py")):
        yield from docstrings(module.read_text(encoding="utf-8"))
    for file in files:
        opened = gzip.open if file.suffix == ".gz" else open
        with opened(file, "rt", encoding="utf-8") as lines:
            yield lines.read()


def docstrings(source: str) -> Iterator[str]:
    """The docstrings of a module and of its classes and functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""


def is_held_out_text(paragraph: str) -> bool:
    """Whether a paragraph is for evaluations only."""
    return hashlib.sha256(paragraph.encode()).digest()[0] % HELD_OUT_SHARE == 0


def told(seed: int, config: CorpusConfig) -> Iterator[TextRow]:
    """Problems without end: the prompt, and its working and answer as the text to be learnt."""
    rng = random.Random(seed)
    while True:
        problem = draw_problem(make_spelled, rng, held_out=False)
        whole = problem_text(problem, config, rng)
        end = whole.index(problem.prompt) + len(problem.prompt)
        yield {"prompt": whole[:end], "text": whole[end:]}


def mixed(
    problems: Iterator[TextRow], real: list[str], share: float, seed: int
) -> Iterator[TextRow]:
    """Problems, and paragraphs of real text with the probability `share`, without end; paragraphs
    come again when all have been.
    """
    rng = random.Random(seed)
    ring = itertools.cycle(rng.sample(real, len(real)))
    for problem in problems:
        while rng.random() < share:
            yield {"prompt": "", "text": next(ring)}
        yield problem


def spelled_numbers(problem: Problem) -> dict[str, Any]:
    """GSM8K's columns; the answer is a word."""
    working = "".join(problem.working[: problem.done]).strip()
    return {"question": problem.prompt, "answer": f"{working}\n#### {problem.answer.strip()}"}


def spelled_choices(problem: Problem) -> dict[str, Any]:
    """CommonsenseQA's columns; wrong choices are running totals of the problem, where there are
    enough.
    """
    rng = random.Random(problem.key)
    right = problem.answer.strip()
    near = sorted({piece.strip() for piece in problem.working} - {right})
    far = [word for word in NUMBERS[1:] if word not in {right, *near}]
    texts = [right, *(near + rng.sample(far, len(far)))[: len(LABELS_OF_CHOICES) - 1]]
    rng.shuffle(texts)
    return {
        "question": problem.prompt,
        "choices": {"label": list(LABELS_OF_CHOICES), "text": texts},
        "answerKey": LABELS_OF_CHOICES[texts.index(right)],
    }


def spelled_answers(problem: Problem) -> dict[str, Any]:
    """A prompt with its answer, as the load tester reads them."""
    expected = f"{problem.answer}{problem.ending}".strip()
    return {"prompt": problem.prompt, "expected": expected, "max_tokens": ANSWER_TOKENS}


def write_mixture(folder: Path, files: Iterable[Path], number: int, share: float) -> list[Path]:
    """Write `number` documents to learn the working from (`lesson`), as many without any working
    (`thinking`), and held-out text and problems for evaluations, as JSONL files.
    """
    found = list(paragraphs(real_texts(files)))
    real = [text for text in found if not is_held_out_text(text)]
    held_out = [text for text in found if is_held_out_text(text)]
    problems = list(itertools.islice(held_out_problems(make_spelled, HELD_OUT_SEED), 400))
    answered = [{"prompt": p.prompt, "text": p.answer + p.ending} for p in problems]
    half = [{"prompt": "", "text": text} for text in held_out]
    lesson = mixed(told(0, WORKED), real, share, seed=0)
    thinking = mixed(told(1000, UNWORKED), real, share, seed=1000)
    rows: dict[str, Iterable[dict[str, Any]]] = {
        "lesson": itertools.islice(lesson, number),
        "thinking": itertools.islice(thinking, number),
        "held-out": itertools.chain.from_iterable(zip(answered, half, strict=False)),
        "held-out-real": ({"text": text} for text in held_out),
        "held-out-numbers": map(spelled_numbers, problems),
        "held-out-choices": map(spelled_choices, problems),
        "held-out-answers": map(spelled_answers, problems),
    }
    folder.mkdir(parents=True, exist_ok=True)
    return [_write_lines(folder / f"{name}.jsonl", content) for name, content in rows.items()]


def _write_lines(file: Path, rows: Iterable[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
