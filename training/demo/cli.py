"""The commands of the demonstration: its corpus, its training, its measurements."""

import argparse
import itertools
from dataclasses import replace
from pathlib import Path

from training.options import (
    Commands,
    add_output,
    add_problems,
    count,
    seed,
    temperature,
    thought_threshold,
)

WORKERS = 2


def add_demo_commands(commands: Commands) -> None:
    """All of them."""
    _add_corpus(commands)
    _add_mixture(commands)
    _add_demo_model(commands)
    _add_demo_trunk(commands)
    _add_demo_gate(commands)
    _add_demo_eval(commands)
    _add_demo_report(commands)
    _add_demo_passes(commands)
    _add_demo_serve_eval(commands)
    _add_demo_rows(commands)
    _add_demo_answers(commands)


def _add_corpus(commands: Commands) -> None:
    parser = commands.add_parser(
        "corpus",
        help="show the text that the demonstration model learns from",
        description="Print documents of the generated corpus, one per line. The same seed prints "
        "the same documents.",
    )
    parser.add_argument(
        "--show", type=count, default=10, metavar="N", help="documents (default 10)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="default 0, as in training")
    parser.add_argument(
        "--no-asides",
        action="store_true",
        help="without visible thoughts: the text from which it learns to think quietly",
    )
    parser.set_defaults(run=_show_corpus)


def _add_mixture(commands: Commands) -> None:
    parser = commands.add_parser(
        "real-corpus",
        help="write text for a pretrained model: word problems among real text",
        description="Write JSONL files to train and to evaluate a pretrained model: lesson (word "
        "problems with their working between dashes, and real text), thinking (the same without "
        "working), and what is held out of both. The real text is Python's documentation of the "
        "language, which every Python brings along, and the files of --text. Numbers are in words, "
        "which tokenizers of pretrained models keep whole. docs/real-thinker.md uses them.",
    )
    add_output(parser)
    parser.add_argument(
        "--text",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="more real text, paragraphs with empty lines between them; may be compressed (.gz)",
    )
    parser.add_argument(
        "--documents", type=count, default=20_000, metavar="N", help="of each (default 20000)"
    )
    parser.add_argument(
        "--real-share",
        type=_share,
        default=0.15,
        metavar="S",
        help="of the documents that are real text (default 0.15)",
    )
    parser.set_defaults(run=_write_mixture)


def _share(text: str) -> float:
    """A number from 0 to less than 1, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to less than 1")
    return value


def _write_mixture(options: argparse.Namespace) -> None:
    from training.demo.corpus.mixture import write_mixture
    from training.output import prepare_output

    prepare_output(options.out, force=options.force)
    for path in write_mixture(options.out, options.text, options.documents, options.real_share):
        print(f"written to {path}")


def _add_demo_model(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo-model",
        help="make the demonstration model from nothing, taught to think",
        description="Generate the corpus, train tokenizer and base model, train thinkers of three "
        "seeds by recipes/demo.yaml and a control for each, measure all of them, and write the "
        "first thinker with a model card and results.json. About an hour on two CPU cores. The "
        "same machine makes the same model.",
    )
    add_output(parser)
    parser.add_argument(
        "--trunk", type=Path, metavar="DIR", help="train from this base model (demo-trunk's)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few steps of everything: a trial, no model"
    )
    parser.set_defaults(run=_make_demo_model)


def _add_demo_trunk(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo-trunk",
        help="train the demonstration's base model from nothing",
        description="Generate the corpus, train tokenizer and base model on one CPU thread (about "
        "half an hour) and write a Quiet-STaR checkpoint whose mixing head is still closed: what "
        "demo-model --trunk and recipes/demo.yaml start from. The same seed on the same machine "
        "makes the same model.",
    )
    add_output(parser)
    parser.add_argument("--seed", type=seed, default=0, help="default 0")
    parser.add_argument(
        "--steps",
        type=count,
        metavar="N",
        help="fewer steps for a quick look; default: the recipe's",
    )
    parser.set_defaults(run=_make_demo_trunk)


def _add_demo_gate(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo-gate",
        help="fit the demonstration model's thought gate anew",
        description="Fit the gate of a model that demo-model made, as demo-model does, and write "
        "the gate, results.json and the model card; nothing is trained. About five minutes on a "
        "CPU core.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="demo-model's folder")
    parser.set_defaults(run=_gate_demo_model)


def _add_demo_eval(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo-eval",
        help="accuracy of a demonstration model that is made to think aloud",
        description="Ask held-out problems and print the share of right answers: answered at once, "
        "and after a thought of b tokens that is forced into the text between two dashes.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="checkpoint folder")
    add_problems(parser)
    parser.add_argument(
        "--temperature",
        type=temperature,
        default=0.0,
        metavar="T",
        help="of the thoughts: 0, the default, writes the likeliest tokens, 1 samples",
    )
    parser.add_argument("--seed", type=seed, default=1, help="which problems are drawn (default 1)")
    parser.set_defaults(run=_evaluate_demo)


def _add_demo_report(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo-report",
        help="tables and plots of what demo-model measured",
        description="Print the tables of a results.json that demo-model wrote; with --plots draw "
        "its plots, too (needs matplotlib).",
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="the results.json")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="folder for the plots (SVG)")
    parser.set_defaults(run=_report_demo)


def _add_demo_passes(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo-passes",
        help="right answers against passes per token of a demonstration model with a gate",
        description="Predict every token of held-out problems, greedy and sampled, with thoughts "
        "before every token and only where the gate expects more than a threshold, in this "
        "process. Print right answers, losses and passes per token, and put them into the model's "
        "results.json, from which demo-report draws them. "
        "Some minutes on two CPU cores.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder that demo-model wrote")
    add_problems(parser)
    parser.set_defaults(run=_measure_passes)


def _add_demo_serve_eval(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo-serve-eval",
        help="accuracy of a served demonstration model by thought budget",
        description="Ask a running server held-out problems through /v1/completions, with thought "
        "budgets 0 to 16, greedy and sampled, and print the share of right answers.",
    )
    parser.add_argument("url", metavar="URL", help="such as http://localhost:8000")
    parser.add_argument(
        "--threshold",
        type=thought_threshold,
        default=0.0,
        metavar="NATS",
        help="think only where a thought is expected to save more than this (default: 0, before "
        "every token)",
    )
    add_problems(parser)
    parser.set_defaults(run=_evaluate_served)


def _add_demo_rows(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo-rows",
        help="write the rows of the demonstration's tasks, as many as you like",
        description="Write held-out problems as JSONL files with the columns of GSM8K, "
        "CommonsenseQA and plain text, for `evaluate --data`. The tasks that come with the trainer "
        "have the first 100 of each family.",
    )
    parser.add_argument("out", type=Path, metavar="DIR", help="folder to write")
    add_problems(parser, default=100)
    parser.set_defaults(run=_write_demo_rows)


def _add_demo_answers(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo-answers",
        help="write held-out problems for load tests that measure accuracy, too",
        description="Write held-out problems with their answers as JSONL, which "
        "`python -m loadtest --answers FILE` takes. The same problems every time.",
    )
    parser.add_argument("out", type=Path, metavar="FILE", help="file to write")
    add_problems(parser, default=100)
    parser.set_defaults(run=_write_answers)


def _show_corpus(options: argparse.Namespace) -> None:
    from training.demo.corpus.documents import documents, documents_without_asides

    stream = documents_without_asides if options.no_asides else documents
    for text in itertools.islice(stream(options.seed), options.show):
        print(text)


def _make_demo_model(options: argparse.Namespace) -> None:
    from training.demo.build import build_demo_model
    from training.demo.recipe import DemoRecipe, quick
    from training.demo.report import accuracy_table
    from training.output import prepare_output

    prepare_output(options.out, force=options.force)
    recipe = DemoRecipe()
    if options.quick:
        recipe = quick(recipe)
    results = build_demo_model(recipe, options.out, options.trunk, WORKERS)
    print(accuracy_table(results))
    print(f"written to {options.out}")


def _gate_demo_model(options: argparse.Namespace) -> None:
    from training.demo.build import gate_demo_model
    from training.demo.recipe import DemoRecipe
    from training.demo.report import RESULTS_FILE, read_results
    from training.gate.report import effort_table

    results = read_results(options.model / RESULTS_FILE)
    gated = gate_demo_model(DemoRecipe(), options.model, results)
    print(effort_table(gated["gate"]))
    print(f"written to {options.model}")


def _make_demo_trunk(options: argparse.Namespace) -> None:
    from training.demo.base_model_build import build_base_model
    from training.demo.recipe import BaseModelRecipe
    from training.output import prepare_output

    prepare_output(options.out, force=options.force)
    recipe = BaseModelRecipe()
    training = replace(
        recipe.training, seed=options.seed, steps=options.steps or recipe.training.steps
    )
    print(build_base_model(replace(recipe, training=training), options.out))
    print(f"written to {options.out}")


def _evaluate_demo(options: argparse.Namespace) -> None:
    from quietstar_infer.config import load_tokenizer
    from training.demo.forced_thoughts import Evaluation, forced_accuracy
    from training.demo.report import family_table
    from training.thoughts.weights import load_base_model

    evaluation = Evaluation(
        problems=options.problems, temperature=options.temperature, seed=options.seed
    )
    model = load_base_model(options.model)
    print(family_table(forced_accuracy(model, load_tokenizer(options.model), evaluation)))


def _report_demo(options: argparse.Namespace) -> None:
    from training.demo.report import read_results, tables

    results = read_results(options.results)
    print(tables(results))
    if options.plots:
        from training.demo.plots import draw_plots

        for file in draw_plots(results, options.plots):
            print(f"written to {file}")


def _measure_passes(options: argparse.Namespace) -> None:
    from training.demo.adaptive.measurement import add_adaptive
    from training.demo.adaptive.table import adaptive_table
    from training.demo.forced_thoughts import Evaluation

    print(adaptive_table(add_adaptive(options.model, Evaluation(problems=options.problems))))


def _evaluate_served(options: argparse.Namespace) -> None:
    from training.demo.corpus.documents import FAMILIES
    from training.demo.forced_thoughts import Evaluation
    from training.demo.served_accuracy import served_tables

    evaluation = Evaluation(problems=options.problems)
    print(served_tables(options.url, list(FAMILIES), evaluation, options.threshold))


def _write_demo_rows(options: argparse.Namespace) -> None:
    from training.demo.problem_files import write_rows

    for path in write_rows(options.out, options.problems):
        print(f"written to {path}")


def _write_answers(options: argparse.Namespace) -> None:
    from training.demo.problem_files import answer_lines

    lines = list(answer_lines(options.problems))
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} problems written to {options.out}")
