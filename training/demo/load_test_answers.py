"""`demo-answers`: the held-out problems as prompts with their expected answers, for load tests."""

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

SEED = 1
"""As the evaluation's: these are its first problems."""


def answer_lines(per_family: int) -> Iterator[str]:
    """JSON lines, a problem of each family in turn."""
    from training.demo.corpus.documents import FAMILIES
    from training.demo.corpus.problems import held_out_problems

    streams = [held_out_problems(make, SEED) for make in FAMILIES.values()]
    for problems in itertools.islice(zip(*streams, strict=True), per_family):
        for problem in problems:
            expected = f"{problem.answer}{problem.ending}".strip()
            content = {"prompt": problem.prompt, "expected": expected, "family": problem.family}
            yield json.dumps(content)


def write_answers(options: argparse.Namespace) -> None:
    """Write the file and say how many there are."""
    lines = list(answer_lines(options.problems))
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} problems written to {options.out}")


def add_answers_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`demo-answers`."""
    parser = commands.add_parser(
        "demo-answers",
        help="write held-out problems for load tests that measure accuracy, too",
        description="Write held-out problems with their answers as JSONL, which "
        "`python -m loadtest --answers FILE` takes. The same problems every time.",
    )
    parser.add_argument("out", type=Path, metavar="FILE", help="file to write")
    parser.add_argument(
        "--problems", type=int, default=100, metavar="N", help="per family (default 100)"
    )
    parser.set_defaults(run=write_answers)
