"""Texts from files or the hub, loaded by `datasets`, as pieces of token ids."""

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from datasets import load_dataset  # type: ignore[import-untyped]
from datasets.exceptions import DatasetsError  # type: ignore[import-untyped]
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from training.errors import UsageError
from training.hub import is_hub_name
from training.thoughts.batch import IGNORED
from training.trainer.documents import Document, document_reader
from training.trainer.recipe import DataConfig, Recipe

BUILDERS = {
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
"""What may follow these endings; `datasets` unpacks it."""
AnyDataset: TypeAlias = Any
"""`Dataset`, or `IterableDataset` when streaming."""
Rows = Mapping[str, list[Any]]


class Pieces(NamedTuple):
    """Data sets of rows with `input_ids`, a list of at most `window` token ids; those of packed
    documents with `document_start`, too: for each token the index of its document's first one; and
    where only answers are learnt with `learnt`, 1 for their tokens.
    """

    train: AnyDataset
    evaluation: AnyDataset


def load_pieces(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Pieces:
    """The recipe's data, tokenized and cut. Raises `UsageError` where there is no text in it, or
    too little."""
    data, window = recipe.data, recipe.optimisation.window
    shortest = recipe.thinking.ahead + 2
    if window < shortest:
        raise UsageError(
            f"optimisation.window is {window}: too short to look {recipe.thinking.ahead} tokens "
            f"ahead, at least {shortest} are needed"
        )
    train = load_text(data, data.path, data.split)
    if data.eval_path or data.eval_split:
        evaluation = load_text(data, data.eval_path or data.path, data.eval_split or "train")
    else:
        if not data.streaming and len(train) <= data.eval_documents:
            raise UsageError(
                f"{data.path} has {len(train)} documents, and {data.eval_documents} are for "
                "evaluation; set data.eval_documents"
            )
        evaluation, train = train, train.skip(data.eval_documents)
    evaluation = evaluation.take(data.eval_documents)
    cut = cutter(data, tokenizer, window=window, shortest=shortest, seed=recipe.run.seed)
    pieces = Pieces(*(_cut_all(dataset, cut) for dataset in (train, evaluation)))
    for name, dataset in pieces._asdict().items():
        if next(iter(dataset), None) is None:
            raise UsageError(
                f"{data.path} has no document of {shortest} tokens or more for {name}; "
                f"{data.eval_documents} documents are for evaluation (data.eval_documents)"
            )
    if not data.streaming:
        _check_number(len(pieces.train), recipe)
        return pieces
    # Endless, because Trainer cannot resume in the second pass over a stream.
    endless = train.repeat(None).shuffle(seed=recipe.run.seed, buffer_size=data.shuffle_buffer)
    return pieces._replace(train=_cut_all(endless, cut))


def _check_number(pieces: int, recipe: Recipe) -> None:
    """Raise `UsageError` where there are too few pieces for one step."""
    step = recipe.optimisation.sequences_per_step
    if pieces < step:
        some = f"{pieces} piece{'' if pieces == 1 else 's'} of text"
        raise UsageError(
            f"{recipe.data.path} has {some} for training, fewer than the {step} sequences of a "
            "step; give more text, or set optimisation.sequences_per_step (and "
            "run.sequences_per_device), optimisation.window or data.eval_documents"
        )


def load_text(data: DataConfig, path: str, split: str) -> AnyDataset:
    """One data set, with its first row checked; raises `UsageError`."""
    dataset = open_data_set(data, path, split)
    first = next(iter(dataset))
    for key, column in (("column", data.column), ("prompt_column", data.prompt_column)):
        if column is not None and column not in first:
            raise UsageError(
                f"the data set {path} has no column {column!r} but {', '.join(first)}; "
                f"set data.{key}"
            )
    return dataset


def open_data_set(data: DataConfig, path: str, split: str) -> AnyDataset:
    """One data set, which is not empty; raises `UsageError`."""
    source = _source(data, path, split)
    try:
        dataset = load_dataset(**source, streaming=data.streaming)
        first = next(iter(dataset), None)
    except (OSError, ValueError, DatasetsError) as error:
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"cannot read the data set {path}: {reason[0]}") from None
    if first is None:
        raise UsageError(f"the data set {path} is empty")
    return dataset


def cutter(
    data: DataConfig, tokenizer: PreTrainedTokenizerBase, *, window: int, shortest: int, seed: int
) -> Callable[[Rows, list[int]], dict[str, list[list[int]]]]:
    """From a batch of rows and their numbers to pieces, none shorter than `shortest` tokens."""
    read = document_reader(data, tokenizer)

    def cut(rows: Rows, numbers: list[int]) -> dict[str, list[list[int]]]:
        documents = read(rows, numbers)
        if data.pieces == "window":
            starts = [
                window_start(len(document.ids), window, f"{seed}/{number}")
                for document, number in zip(documents, numbers, strict=True)
            ]
            pieces = [
                document.cut(start, window)
                for document, start in zip(documents, starts, strict=True)
            ]
        else:
            pieces = joined(documents, window)
        columns: dict[str, list[list[int]]] = {"input_ids": [piece.ids for piece in pieces]}
        if data.answers_only:
            columns["learnt"] = [[*map(int, piece.learnt)] for piece in pieces]
        if data.pieces == "packed":
            lengths = [len(document.ids) for document in documents]
            columns["document_start"] = document_starts(lengths, window)
        kept = [
            number
            for number, piece in enumerate(pieces)
            if len(piece.ids) >= shortest and any(piece.learnt[1:])
        ]
        return {name: [column[number] for number in kept] for name, column in columns.items()}

    return cut


def joined(documents: list[Document], window: int) -> list[Document]:
    """All documents joined and cut every `window` tokens; the last piece may be shorter."""
    ids = list(itertools.chain.from_iterable(document.ids for document in documents))
    learnt = list(itertools.chain.from_iterable(document.learnt for document in documents))
    return [Document(ids, learnt).cut(at, window) for at in range(0, len(ids), window)]


def document_starts(lengths: list[int], window: int) -> list[list[int]]:
    """For every token of `joined` documents the index in its piece of its document's first token
    there.
    """
    starts = itertools.accumulate(lengths, initial=0)
    first = [start for start, length in zip(starts, lengths, strict=False) for _ in range(length)]
    return [
        [max(0, start - at) for start in first[at : at + window]]
        for at in range(0, len(first), window)
    ]


def collate(pieces: Sequence[Mapping[str, list[int]]], pad_token_id: int) -> dict[str, Tensor]:
    """Pieces padded on the right: `input_ids`, `attention_mask`; where a piece has several
    documents, `document_start`; and where only answers are learnt, `labels`; (B, T) each.
    """
    longest = max(len(piece["input_ids"]) for piece in pieces)
    rows = [piece["input_ids"] for piece in pieces]
    batch = {
        "input_ids": [ids + [pad_token_id] * (longest - len(ids)) for ids in rows],
        "attention_mask": [[1] * len(ids) + [0] * (longest - len(ids)) for ids in rows],
    }
    if "learnt" in pieces[0]:
        batch["labels"] = [
            [
                token if learnt else IGNORED
                for token, learnt in zip(ids, piece["learnt"], strict=True)
            ]
            + [IGNORED] * (longest - len(ids))
            for ids, piece in zip(rows, pieces, strict=True)
        ]
    starts = [piece.get("document_start") or [0] for piece in pieces]
    if any(map(any, starts)):
        # Padding belongs to the last document, so that its positions stay small.
        batch["document_start"] = [row + row[-1:] * (longest - len(row)) for row in starts]
    return {name: torch.tensor(values) for name, values in batch.items()}


def window_start(length: int, window: int, seed: str) -> int:
    """Where a window of a document begins, as the seed alone decides; 0 in a shorter document."""
    return random.Random(seed).randint(0, max(0, length - window))


def _source(data: DataConfig, path: str, split: str) -> dict[str, Any]:
    file = Path(path)
    ending = Path(file.stem).suffix if file.suffix in COMPRESSED else file.suffix
    if not file.is_file():
        if not file.exists() and (ending in BUILDERS or not is_hub_name(path)):
            raise UsageError(f"cannot read the data set {path}: there is no such file or folder")
        return {"path": path, "name": data.name, "split": split}
    if ending not in BUILDERS:
        raise UsageError(
            f"{path}: expected a file that ends in {', '.join(BUILDERS)}, or in one of them and "
            f"{', '.join(COMPRESSED)}"
        )
    if not file.stat().st_size:
        raise UsageError(f"the data set {path} is empty")
    return {"path": BUILDERS[ending], "data_files": str(file), "split": "train"}


def _cut_all(
    dataset: AnyDataset, cut: Callable[[Rows, list[int]], dict[str, list[list[int]]]]
) -> AnyDataset:
    first: dict[str, Any] = next(iter(dataset), {})
    return dataset.map(cut, batched=True, with_indices=True, remove_columns=list(first))
