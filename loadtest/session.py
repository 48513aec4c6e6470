"""From a prepared plan to a results folder: what `run`, `search` and `soak` have in common."""

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from loadtest.analysis.summary import Summary, summarise
from loadtest.records import Run
from loadtest.reporting.report import write_report
from loadtest.reporting.results import REPORT, SUMMARY, Recorder, write_summary
from loadtest.reporting.terminal import LiveView, print_summary
from loadtest.reporting.watch import Watchers, Writer
from loadtest.sending.progress import Progress
from loadtest.sending.runner import Prepared


@dataclass(frozen=True)
class RunSettings:
    """Name, command and service levels of a run."""

    command: list[str]
    label: str | None = None
    scenario: str | None = None
    levels: Sequence[str] = ()


@dataclass
class Session:
    """A run under way: its results folder and its watchers."""

    run: Run
    folder: Path
    progress: Progress
    writer: Writer
    recorder: Recorder
    console: Console

    @property
    def disk_is_full(self) -> bool:
        """Whether writing has failed; no further cell should start."""
        return self.writer.trouble is not None

    def finish(self) -> int:
        """Show and write the results; the exit status: 1 for a run that was cut short, that could
        not be written, or in which no request succeeded."""
        written = self.show_and_write()
        succeeded = any(
            record.failure is None and not record.warmup
            for cell in self.run.cells
            for record in cell.records
        )
        return 0 if written and succeeded and not self.is_partial else 1

    @property
    def is_partial(self) -> bool:
        """Whether a cell was cut short."""
        return any(cell.partial for cell in self.run.cells)

    def show_and_write(self) -> bool:
        """Print the tables, write CSV and report; whether all files could be written."""
        if self.writer.trouble:
            self.run.warnings.append(
                f"{self.folder}: {self.writer.trouble.strerror}; what follows was measured, but "
                "not all of it is in the files"
            )
        summary = summarise(self.run)
        print_summary(summary, self.console)
        written = self._write(summary)
        self.console.print()
        if written:
            self.console.print(f"report: {self.folder / REPORT}", soft_wrap=True, highlight=False)
        return written

    def _write(self, summary: Summary) -> bool:
        try:
            self.recorder.save()
            write_summary(summary, self.folder / SUMMARY)
            write_report(summary, self.folder / REPORT)
        except OSError as error:
            self.console.print(
                f"error: {self.folder}: {error.strerror}; once there is room, `python -m loadtest "
                f"report {self.folder}` makes tables and report of what is there",
                style="bold red",
                soft_wrap=True,
                highlight=False,
            )
            return False
        return True


@contextmanager
def session(
    prepared: Prepared, folder: Path | None, settings: RunSettings, console: Console
) -> Iterator[Session]:
    """Create the folder, and show and record what happens in the `with` block.

    Raises `LoadTestError` if the folder exists already.
    """
    now = datetime.now(UTC)
    name = settings.scenario or "run"
    folder = folder or Path("runs/loadtest") / f"{now:%Y%m%d-%H%M%S}-{name}"
    run = Run(
        label=settings.label or name,
        started_at=now.isoformat(timespec="seconds"),
        url=prepared.server.url,
        urls=[server.url for server in prepared.servers] if len(prepared.servers) > 1 else [],
        model=prepared.server.model,
        server_version=prepared.server.version,
        command=settings.command,
        seed=prepared.plan.seed,
        machine=machine(),
        prompts=prepared.prompts,
        scenario=settings.scenario,
        levels=list(settings.levels),
        cells=[],
        warnings=list(prepared.warnings),
    )
    for warning in prepared.warnings:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)
    recorder = Recorder(folder, run)
    writer = Writer(recorder)
    try:
        with LiveView(console) as view:
            yield Session(run, folder, Watchers([writer, view]), writer, recorder, console)
    finally:
        writer.close()


def machine() -> str:
    """The client's machine, in words."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        f"{os.cpu_count()} CPU cores, {memory:.0f} GiB, "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    )
