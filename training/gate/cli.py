"""`gate` on the command line."""

import argparse
from pathlib import Path

from training.gate.settings import GateSettings
from training.options import Commands, add_beginning, count, seed

_DEFAULT = GateSettings()


def add_gate(commands: Commands) -> None:
    """`gate`: when is a thought worth it."""
    parser = commands.add_parser(
        "gate",
        help="fit a thought gate to a checkpoint, so that it thinks only where it pays",
        description="Think at every position of some documents, measure what each thought changes "
        "(KL divergence of the mixed from the base prediction, in nats), and fit a small head that "
        "tells this from the base hidden state. The checkpoint's weights stay as they are. Writes "
        "the gate into the checkpoint (thought_gate.safetensors, and its keys of config.json), "
        "with the threshold of the fewest passes that keep 97 % of the gain on held-out documents; "
        "80 %, 97 % and 99 % are the thresholds of low, medium and high reasoning_effort.",
    )
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="folder of a Quiet-STaR checkpoint"
    )
    _add_data(parser)
    parser.add_argument(
        "--budgets",
        type=count,
        nargs="+",
        default=[],
        metavar="N",
        help="thought budgets that the gate learns; between them it interpolates (default: the "
        "checkpoint's default budget)",
    )
    for name, kind, meaning in (
        ("documents", count, "at most so many are read"),
        ("document_tokens", count, "documents are cut to so many tokens"),
        ("hidden_size", count, "of the gate's hidden layer"),
        ("epochs", count, "passes over the positions"),
        ("seed", seed, "of the thoughts and the fit"),
    ):
        default = getattr(_DEFAULT, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=default,
            metavar="N",
            help=f"{meaning} (default {default})",
        )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the report: gate.md, gate.json, gate.svg (default: runs/gate/NAME, by the "
        "name of CHECKPOINT)",
    )
    parser.add_argument(
        "--replace", action="store_true", help="fit anew the gate of a checkpoint that has one"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: a GPU if any)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.set_defaults(run=_fit_gate)


def _add_data(parser: argparse.ArgumentParser) -> None:
    """As the section `data` of a recipe."""
    parser.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="documents like those that will be served: a file (.jsonl, .json, .csv, .parquet, "
        "or .txt with a document per line; also .gz), a folder or a hub name",
    )
    parser.add_argument(
        "--eval-data",
        metavar="PATH",
        help="documents that are held out for the report and the thresholds (default: one in five "
        "of --data)",
    )
    parser.add_argument("--name", help="the hub's configuration")
    parser.add_argument("--split", default="train", help="of the data set (default train)")
    parser.add_argument("--column", default="text", help="where the text is (default text)")
    parser.add_argument(
        "--prompt-column", help="a column whose text stands before that of --column"
    )
    add_beginning(parser)
    parser.add_argument(
        "--streaming", action="store_true", help="read only as much of the data set as is needed"
    )


def _fit_gate(options: argparse.Namespace) -> None:
    from training.gate.command import GateJob, run_gate
    from training.gate.report import effort_table, tradeoff_table
    from training.trainer.recipe import DataConfig

    folder = options.checkpoint
    job = GateJob(
        folder,
        DataConfig(
            path=options.data,
            name=options.name,
            split=options.split,
            column=options.column,
            prompt_column=options.prompt_column,
            eval_path=options.eval_data,
            streaming=options.streaming,
            beginning=options.beginning,
        ),
        GateSettings(
            budgets=tuple(options.budgets),
            documents=options.documents,
            document_tokens=options.document_tokens,
            hidden_size=options.hidden_size,
            epochs=options.epochs,
            seed=options.seed,
        ),
        options.out or Path("runs/gate") / folder.resolve().name,
        replace=options.replace,
        device=options.device,
        dtype=options.dtype,
    )
    results = run_gate(job)
    print(tradeoff_table(results))
    print(effort_table(results))
    print(f"written to {folder}, with the report in {job.report}")
