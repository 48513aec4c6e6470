"""Training text for a pretrained model: spelled word problems among paragraphs of real text.

The real text is the documentation that every Python brings along (of the language, in `pydoc_data`,
and of its modules, in their docstrings) and whatever files are given. Of its paragraphs one in `HELD_OUT_SHARE` is held out, chosen by a hash of its text.
"""

import ast
import gzip
import hashlib
import itertools
import json
import random
import re
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pydoc_data.topics  # type: ignore[import-untyped]

from training.demo.corpus.documents import SPELLED, documents, documents_without_asides
from training.demo.corpus.problems import HELD_OUT_SHARE, Problem, held_out_problems
from training.demo.corpus.spelled import NUMBERS, make_spelled

SHORTEST_PARAGRAPH = 120
"""Characters."""
HELD_OUT_SEED = 1
LABELS_OF_CHOICES = "ABCDE"


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


def mixed(problems: Iterator[str], real: list[str], share: float, seed: int) -> Iterator[str]:
    """Problems, and paragraphs of real text with the probability `share`, without end; paragraphs
    come again when all have been.
    """
    rng = random.Random(seed)
    order = rng.sample(real, len(real))
    ring = itertools.cycle(order)
    for problem in problems:
        while rng.random() < share:
            yield next(ring)
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


def write_mixture(folder: Path, files: Iterable[Path], number: int, share: float) -> list[Path]:
    """Write `number` documents to learn the working from (`lesson`), as many without any working
    (`thinking`), and held-out text and problems for evaluations, as JSONL files.
    """
    found = list(paragraphs(real_texts(files)))
    real = [text for text in found if not is_held_out_text(text)]
    held_out_real = [text for text in found if is_held_out_text(text)]
    problems = list(itertools.islice(held_out_problems(make_spelled, HELD_OUT_SEED), 400))
    solved = [problem.prompt + problem.answer + problem.ending for problem in problems]
    lesson = mixed(documents(0, SPELLED), real, share, seed=0)
    thinking = mixed(documents_without_asides(1000, SPELLED), real, share, seed=1000)
    halves = zip(solved, held_out_real, strict=False)
    rows: dict[str, Iterable[dict[str, Any]]] = {
        "lesson": ({"text": text} for text in itertools.islice(lesson, number)),
        "thinking": ({"text": text} for text in itertools.islice(thinking, number)),
        "held-out": ({"text": text} for pair in halves for text in pair),
        "held-out-real": ({"text": text} for text in held_out_real),
        "held-out-numbers": map(spelled_numbers, problems),
        "held-out-choices": map(spelled_choices, problems),
    }
    folder.mkdir(parents=True, exist_ok=True)
    return [_write_lines(folder / f"{name}.jsonl", content) for name, content in rows.items()]


def _write_lines(file: Path, rows: Iterable[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
