"""`evaluate` on the command line."""

import argparse
from pathlib import Path

from training.options import (
    Commands,
    add_beginning,
    add_evaluated_model,
    count,
    seed,
    temperature,
    thought_budget,
    thought_threshold,
)


def add_evaluate(commands: Commands) -> None:
    """`evaluate`: what thoughts are worth, by budget."""
    parser = commands.add_parser(
        "evaluate",
        help="the paper's evaluations: what thoughts are worth, by budget and threshold",
        description="Measure a model on given text and on questions, without and with thoughts: "
        "accuracy as the official code defines it, exact answers, the likeliest choice, a majority "
        "vote over chains of thought, perplexity by how hard a token is. Writes JSON, Markdown, "
        "plots and heat maps. docs/evaluation.md explains them.",
    )
    add_evaluated_model(parser)
    parser.add_argument(
        "--tasks",
        nargs="+",
        required=True,
        metavar="TASK",
        help="names of tasks in training/evaluations/tasks (gsm8k, gsm8k-chain, commonsense-qa, "
        "openwebmath, demo-numbers …), or YAML files",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--resume", action="store_true", help="go on with the evaluation in --out")
    parser.add_argument(
        "--data",
        type=_data_argument,
        action="append",
        default=[],
        metavar="TASK=PATH",
        help="take a task's rows from here: a file (.jsonl, .json, .csv, .parquet, .txt; also "
        ".gz), a folder or a hub name with the same columns; may be given again",
    )
    parser.add_argument("--limit", type=count, metavar="N", help="ask N rows of each task")
    parser.add_argument(
        "--few-shot",
        type=thought_budget,
        default=0,
        metavar="N",
        help="put N examples with their answers before every question, the same before all: the "
        "first rows of the task's `examples` (GSM8K's and CommonsenseQA's training questions) or, "
        "where it names none or --data replaces its rows, its own first rows, which are then not "
        "asked (default 0)",
    )
    parser.add_argument(
        "--chat",
        action="store_true",
        help="put questions by the tokenizer's chat template: the user asks and the assistant "
        "answers, in the examples, too",
    )
    parser.add_argument(
        "--threshold",
        type=thought_threshold,
        nargs="+",
        default=[0.0],
        metavar="T",
        help="think before a token only where the thought is expected to save more than T nats; "
        "several are a sweep, crossed with --budgets, and plotted against passes per token. What a "
        "thought is expected to save is told by the checkpoint's gate or, without one, bounded by "
        "the entropy of the prediction (default 0: before every token, whatever the default "
        "thresholds of checkpoint and server)",
    )
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
    add_beginning(parser)
    parser.add_argument(
        "--document-tokens",
        type=count,
        default=768,
        metavar="N",
        help="documents are cut to so many tokens (default 768)",
    )
    parser.add_argument(
        "--heat-maps",
        type=thought_budget,
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
        "--control",
        metavar="CONTROL",
        help="folder or hub name of the model's control, trained on the same text without thoughts "
        "(train --control): what training alone gained stands beside what thoughts gained; asked "
        "as BASE is",
    )
    parser.add_argument(
        "--batch-size", type=count, default=16, metavar="N", help="items at once (default 16)"
    )
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    from training.evaluations.command import run_evaluation

    try:
        run_evaluation(options)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"what is known is in {options.out}; add --resume to go on"
        ) from None


def _data_argument(text: str) -> tuple[str, str]:
    """`TASK=PATH`, for argparse."""
    task, equals, path = text.partition("=")
    if not (task and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not TASK=PATH")
    return task, path
