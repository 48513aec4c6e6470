"""The results folder of an evaluation.

    run.json      the settings: model, tasks, budgets, seeds, versions
    items.jsonl   a line per item, as soon as its result is known
    results.json  run.json and the figures computed from the items
    report.md, *.svg, heat-map-*.html

An evaluation that was stopped is resumed behind the last complete line of items.jsonl. Nothing is
written before the first result is known: one that fails before it leaves nothing that the corrected
command would stumble over.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from training.errors import UsageError
from training.output import write_json

RUN, ITEMS, RESULTS, REPORT = "run.json", "items.jsonl", "results.json", "report.md"
# Keys that may change between the parts of a resumed evaluation.
_MAY_CHANGE = ("command", "versions", "route", "batch_size")


class Place(NamedTuple):
    """An item of a task, and the role of the model (`thinker` or `base`)."""

    who: str
    task: str
    number: int


class Record:
    """The results so far; raises `OSError` where the disk is full."""

    def __init__(self, folder: Path, run: Mapping[str, Any], *, resume: bool) -> None:
        """Start a folder, or resume it; raises `UsageError` where it holds other results."""
        self.folder = folder
        self.run = run
        self.items: dict[Place, dict[str, Any]] = {}
        if resume and (folder / RUN).exists():
            _check_same(folder, run)
            self.items = dict(_whole_lines(folder / ITEMS))
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(
                f"{folder} is not empty; add --resume to go on with the evaluation in it"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self._lines: IO[str] | None = None

    def __contains__(self, place: Place) -> bool:
        return place in self.items

    def add(self, place: Place, content: dict[str, Any]) -> None:
        """Add the result of an item."""
        if self._lines is None:
            self._lines = self._open()
        self.items[place] = content
        self._lines.write(_line(place, content))

    def of(self, who: str, task: str) -> list[dict[str, Any]]:
        """The results of a task, in the order of its rows."""
        places = sorted(place for place in self.items if place[:2] == (who, task))
        return [self.items[place] for place in places]

    def close(self) -> None:
        """Close items.jsonl."""
        if self._lines is not None:
            self._lines.close()

    def _open(self) -> IO[str]:
        """Write the settings, and open items.jsonl, without a line that was cut short."""
        write_json(self.folder / RUN, self.run)
        part = self.folder / f"{ITEMS}.part"
        lines = (_line(place, content) for place, content in self.items.items())
        part.write_text("".join(lines), encoding="utf-8")
        part.replace(self.folder / ITEMS)
        # Line-buffered: whatever stops the program, results so far are on disk.
        return (self.folder / ITEMS).open("a", encoding="utf-8", buffering=1)


def _line(place: Place, content: Mapping[str, Any]) -> str:
    return json.dumps({**place._asdict(), **content}) + "\n"


def _whole_lines(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    for line in lines[:-1]:  # a line without its newline was cut short
        content = json.loads(line)
        place = Place(*(content.pop(field) for field in Place._fields))
        yield place, content


def _check_same(folder: Path, run: Mapping[str, Any]) -> None:
    former = json.loads((folder / RUN).read_text(encoding="utf-8"))
    now = json.loads(json.dumps(run))
    for key in former.keys() | now.keys():
        if key not in _MAY_CHANGE and former.get(key) != now.get(key):
            raise UsageError(
                f"{folder} holds an evaluation with another {key}: {former.get(key)}, not "
                f"{now.get(key)}; give another --out"
            )
