"""`evaluate`, `scoring-speed` and `demo-rows` on the command line."""

import argparse
from pathlib import Path
from typing import TypeAlias

from training.options import count, seed, temperature, whole_number

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def run_evaluate(options: argparse.Namespace) -> None:
    """Evaluate a model."""
    from training.evaluations.command import run_evaluation

    try:
        run_evaluation(options)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"what is known is in {options.out}; add --resume to go on"
        ) from None


def run_scoring_speed(options: argparse.Namespace) -> None:
    """Time parallel and sequential scoring."""
    from benchmarks.training.scoring_speed import scoring_speed

    print(scoring_speed(options))


def write_demo_rows(options: argparse.Namespace) -> None:
    """Write the demonstration's rows and say where they are."""
    from training.demo.task_rows import write_rows

    for path in write_rows(options.out, options.problems):
        print(f"written to {path}")


def data_argument(text: str) -> tuple[str, str]:
    """`TASK=PATH`, for argparse."""
    task, equals, path = text.partition("=")
    if not (task and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not TASK=PATH")
    return task, path


def budget(text: str) -> int:
    """A thought budget, for argparse."""
    return whole_number(text, 0)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="folder or hub name of a Quiet-STaR checkpoint"
    )
    parser.add_argument(
        "--url",
        help="ask this server, such as http://localhost:8000, which serves MODEL; without it MODEL "
        "is asked in this process. MODEL's tokenizer is used in both cases",
    )
    parser.add_argument(
        "--served-model", metavar="NAME", help="with --url: the server's name for MODEL"
    )
    parser.add_argument(
        "--budgets",
        type=budget,
        nargs="+",
        default=[0, 2, 4, 8, 12, 16],
        metavar="N",
        help="thought budgets; 0 is always among them (default: 0 2 4 8 12 16)",
    )
    parser.add_argument("--device", help="in process: cpu, cuda, cuda:1 … (default: a GPU if any)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="in process"
    )
    parser.add_argument(
        "--thought-embeddings",
        choices=("learned", "reset"),
        help="in process: START and END, as the server's option (default: the checkpoint's)",
    )


def _add_evaluate(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="the paper's evaluations: what thoughts are worth, by budget",
        description="Measure a model on given text and on questions, without and with thoughts: "
        "accuracy as the official code defines it, exact answers, the likeliest choice, a majority "
        "vote over chains of thought, perplexity by how hard a token is. Writes JSON, Markdown, "
        "plots and heat maps. docs/evaluation.md explains them.",
    )
    _add_model(parser)
    parser.add_argument(
        "--tasks",
        nargs="+",
        required=True,
        metavar="TASK",
        help="names of tasks in training/tasks (gsm8k, gsm8k-chain, commonsense-qa, openwebmath, "
        "demo-numbers …), or YAML files",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--resume", action="store_true", help="go on with the evaluation in --out")
    parser.add_argument(
        "--data",
        type=data_argument,
        action="append",
        default=[],
        metavar="TASK=PATH",
        help="take a task's rows from here: a file (.jsonl, .json, .parquet, .txt), a folder or a "
        "hub name with the same columns; may be given again",
    )
    parser.add_argument("--limit", type=count, metavar="N", help="the first N rows of each task")
    parser.add_argument(
        "--thought-temperature",
        type=temperature,
        default=1.0,
        metavar="T",
        help="of the thoughts; 0 = greedy (default 1, as the official code samples)",
    )
    parser.add_argument(
        "--seed",
        type=seed,
        default=1234,
        help="of thoughts and votes (default 1234, as lm-evaluation-harness sends)",
    )
    parser.add_argument(
        "--document-tokens",
        type=count,
        default=768,
        metavar="N",
        help="documents are cut to so many tokens (default 768)",
    )
    parser.add_argument(
        "--heat-maps",
        type=budget,
        default=1,
        metavar="N",
        help="documents of each text task to draw (default 1). Through a server, it must allow "
        "thoughts to be seen (--allow-return-thoughts)",
    )
    parser.add_argument(
        "--base",
        metavar="BASE",
        help="folder or hub name of the model before it learned to think, for comparison; asked in "
        "this process, without thoughts",
    )
    parser.add_argument(
        "--batch-size", type=count, default=16, metavar="N", help="items at once (default 16)"
    )
    parser.set_defaults(run=run_evaluate)


def _add_scoring_speed(commands: Commands) -> None:
    parser = commands.add_parser(
        "scoring-speed",
        help="how fast given text is scored with thoughts, beside one position after another",
        description="Score a text at all positions at once, and the same positions one after "
        "another, at each budget in turn, and print both as a table: tokens per second, the median "
        "of the rounds.",
    )
    _add_model(parser)
    parser.add_argument(
        "--tokens", type=count, default=256, metavar="N", help="of the text (default 256)"
    )
    parser.add_argument(
        "--rounds", type=count, default=3, metavar="N", help="each of another text (default 3)"
    )
    parser.set_defaults(run=run_scoring_speed)


def _add_demo_rows(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo-rows",
        help="write the rows of the demonstration's tasks, as many as you like",
        description="Write held-out problems as JSONL files with the columns of GSM8K, "
        "CommonsenseQA and plain text, for `evaluate --data`. training/tasks has the first 100 of "
        "each family.",
    )
    parser.add_argument("out", type=Path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--problems", type=count, default=100, metavar="N", help="per family (default 100)"
    )
    parser.set_defaults(run=write_demo_rows)


def add_evaluation_commands(commands: Commands) -> None:
    """All of them."""
    _add_evaluate(commands)
    _add_scoring_speed(commands)
    _add_demo_rows(commands)
