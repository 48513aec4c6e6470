"""Watchers of a running load test: several in one, and the one that writes the results."""

from collections.abc import Sequence

from loadtest.records import Cell
from loadtest.reporting.results import Recorder
from loadtest.sending.progress import Progress, Snapshot, Upcoming


class Watchers:
    """Passes everything on to several watchers."""

    def __init__(self, watchers: Sequence[Progress]) -> None:
        self._watchers = watchers

    def started(self, cell: Upcoming) -> None:
        for watcher in self._watchers:
            watcher.started(cell)

    def update(self, snapshot: Snapshot) -> None:
        for watcher in self._watchers:
            watcher.update(snapshot)

    def finished(self, cell: Cell) -> None:
        for watcher in self._watchers:
            watcher.finished(cell)


class Writer:
    """Passes everything on to the recorder.

    Where the results cannot be written any more, it stops writing and keeps the error in `trouble`;
    the running cell is measured to its end, for the tables.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.trouble: OSError | None = None

    def started(self, cell: Upcoming) -> None:
        planned = Cell(
            budgets=cell.budgets.by_name,
            budget_field=cell.budgets.field.name if cell.budgets.field else None,
            threshold=cell.threshold,
            load=cell.load,
            asked_rate=None,
            concurrency=None,
            repeat=cell.repeat,
            window=(0.0, 0.0),
            records=[],
            client=None,
            partial=True,
        )
        if self.trouble is None:
            try:
                self._recorder.begin(planned)
            except OSError as error:
                self.trouble = error

    def update(self, snapshot: Snapshot) -> None:
        if self.trouble is None:
            try:
                for record in snapshot.fresh:
                    self._recorder.record(record)
            except OSError as error:
                self.trouble = error

    def finished(self, cell: Cell) -> None:
        if self.trouble is not None:
            cell.partial = True
        try:
            self._recorder.end(cell)
        except OSError as error:
            self.trouble = self.trouble or error

    def close(self) -> None:
        """Close the recorder. Buffered lines may not fit on a full disk either."""
        try:
            self._recorder.close()
        except OSError as error:
            self.trouble = self.trouble or error
