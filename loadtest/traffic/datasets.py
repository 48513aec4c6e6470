"""Rows of data sets: of local files, and of the hub."""

import csv
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.errors import LoadTestError

FIELDS = ("prompt", "expected", "max_tokens", "conversation")
"""What a column can be: a prompt, with the expected answer and the limit of its length, or a whole
conversation."""
TableRow = dict[str, Any]


@dataclass(frozen=True)
class DataSet:
    """A data set, and which of its columns are read."""

    name: str
    """A file (`.jsonl`, `.json`, `.csv` or `.parquet`), a folder of such files, or a name of the
    hub."""
    columns: tuple[tuple[str, str], ...] = (("prompt", "prompt"),)
    """Field and column, of those in `FIELDS`: a prompt or a conversation, at least."""
    split: str = "train"
    """Of a data set of the hub, or of a folder."""
    config: str | None = None
    """Of a data set of the hub that has several."""

    def rows(self) -> Iterator[TableRow]:
        """The fields of each row; raises `LoadTestError`."""
        for row in self._read():
            yield {field: self._value(row, column) for field, column in self.columns}

    def _read(self) -> Iterator[TableRow]:
        path = Path(self.name)
        if not path.is_file():
            return self._hub()
        reader = _READERS.get(path.suffix)
        if reader is None:
            kinds = ", ".join(_READERS)
            raise LoadTestError(f"data set {self.name}: no file of a known kind ({kinds})")
        return _guarded(reader, path)

    def _value(self, row: TableRow, column: str) -> Any:
        if not isinstance(row, Mapping) or column not in row:
            there = ", ".join(map(str, row)) if isinstance(row, Mapping) else "not an object"
            raise LoadTestError(
                f"data set {self.name} has no column {column!r} ({there}): choose with "
                "--columns, such as prompt=question"
            )
        return row[column]

    def _hub(self) -> Iterator[TableRow]:
        """With the library `datasets`, which reads folders, too."""
        try:
            import datasets  # type: ignore[import-untyped]
        except ImportError:
            raise LoadTestError(
                f"--dataset {self.name}: there is no such file, and data sets of the hub need the "
                "Python package datasets (pip install datasets)"
            ) from None
        # It would log each of several attempts to reach the hub.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        try:
            found = datasets.load_dataset(self.name, self.config, split=self.split)
        except ConnectionError:
            raise LoadTestError(
                f"--dataset {self.name}: there is no such file, and the hub cannot be reached"
            ) from None
        except Exception as error:  # the library raises nothing more specific
            reason = " ".join(str(error).split())
            raise LoadTestError(f"--dataset {self.name}: {reason}") from error
        return iter(found)


def parse_columns(text: str) -> tuple[tuple[str, str], ...]:
    """`prompt=question,expected=answer`: fields and the columns that they are read from; raises
    `LoadTestError`."""
    pairs = [part.partition("=")[::2] for part in text.split(",")]
    columns = {field.strip(): column.strip() for field, column in pairs}
    named = len(columns) == len(pairs) and all(columns.values()) and columns.keys() <= set(FIELDS)
    if not named or ("prompt" in columns) == ("conversation" in columns):
        raise LoadTestError(
            f"columns {text!r} are not like prompt=question, with or without expected=… and "
            "max_tokens=…, or conversation=messages"
        )
    return tuple(columns.items())


def _guarded(read: Callable[[Path], Iterator[TableRow]], path: Path) -> Iterator[TableRow]:
    try:
        yield from read(path)
    except OSError as error:
        raise LoadTestError(f"data set {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise LoadTestError(f"data set {path}: {error}") from error


def _json_lines(path: Path) -> Iterator[TableRow]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ValueError(f"line {number} is no JSON ({error})") from error


def _json_array(path: Path) -> Iterator[TableRow]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, list):
        raise ValueError("no JSON array of objects")
    return iter(content)


def _csv(path: Path) -> Iterator[TableRow]:
    # newline="": required by the csv module.
    with path.open(newline="", encoding="utf-8") as lines:
        yield from csv.DictReader(lines)


def _parquet(path: Path) -> Iterator[TableRow]:
    try:
        from pyarrow import parquet  # type: ignore[import-untyped]
    except ImportError:
        raise LoadTestError(
            f"data set {path}: Parquet files need the Python package pyarrow (pip install pyarrow)"
        ) from None
    for batch in parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


_READERS: Mapping[str, Callable[[Path], Iterator[TableRow]]] = {
    ".jsonl": _json_lines,
    ".json": _json_array,
    ".csv": _csv,
    ".parquet": _parquet,
}
