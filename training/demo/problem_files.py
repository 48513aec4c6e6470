"""Files of held-out problems: rows for evaluations, in the columns of GSM8K, CommonsenseQA and
plain text, and prompts with their answers for load tests.
"""

import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from training.demo.corpus.documents import FAMILIES
from training.demo.corpus.problems import Problem, held_out_problems

FILE_SEED = 1
"""As that of the demonstration's evaluation: these are its first problems."""
LABELS = "ABCDE"
ProblemRow = dict[str, Any]


def file_problems(per_family: int) -> Iterator[Problem]:
    """A problem of each family in turn."""
    streams = [held_out_problems(make, FILE_SEED) for make in FAMILIES.values()]
    for found in itertools.islice(zip(*streams, strict=True), per_family):
        yield from found


def number_row(problem: Problem) -> ProblemRow:
    """GSM8K's columns: the working, four number signs, the answer."""
    working = "".join(problem.working[: problem.done]).strip()
    return {"question": problem.prompt, "answer": f"{working}\n#### {problem.answer.strip()}"}


def choice_row(problem: Problem) -> ProblemRow:
    """CommonsenseQA's columns; wrong choices are running values of the problem, where there are
    enough.
    """
    rng = random.Random(problem.key)
    right = problem.answer.strip()
    seen = {piece.strip() for piece in problem.working if piece.strip().isdigit()}
    near = sorted(seen - {right}, key=int)
    rng.shuffle(near)
    far = [str(number) for number in range(10) if str(number) not in {right, *near}]
    rng.shuffle(far)
    texts = [right, *(near + far)[: len(LABELS) - 1]]
    rng.shuffle(texts)
    return {
        "question": problem.prompt,
        "choices": {"label": list(LABELS), "text": texts},
        "answerKey": LABELS[texts.index(right)],
    }


def text_row(problem: Problem) -> ProblemRow:
    """A solved problem as a document."""
    return {"text": problem.prompt + problem.answer + problem.ending}


MAKERS: dict[str, Callable[[Problem], ProblemRow]] = {
    "demo-numbers": number_row,
    "demo-choices": choice_row,
    "demo-text": text_row,
}
"""By the name of the data set."""


def write_rows(folder: Path, per_family: int) -> list[Path]:
    """Write all data sets as JSONL files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, make in MAKERS.items():
        lines = (json.dumps(make(problem)) + "\n" for problem in file_problems(per_family))
        written.append(folder / f"{name}.jsonl")
        written[-1].write_text("".join(lines), encoding="utf-8")
    return written


def answer_lines(per_family: int) -> Iterator[str]:
    """JSON lines of prompts with their expected answers, a problem of each family in turn."""
    for problem in file_problems(per_family):
        expected = f"{problem.answer}{problem.ending}".strip()
        content = {"prompt": problem.prompt, "expected": expected, "family": problem.family}
        yield json.dumps(content)
