"""A document coloured by what thoughts gained at each token, as one self-contained HTML file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from training.evaluations.sweep import Cell

TEMPLATE = "heat-map.html.jinja"
FULL_COLOUR_NATS = 3.0


@dataclass(frozen=True)
class HeatToken:
    """A token as it is shown; the first one has no numbers, because nothing predicts it. `thought`
    is None where there was none; `expected` is its expected gain in nats, where that is known.
    """

    text: str
    base: float | None = None
    mixed: float | None = None
    weight: float | None = None
    thought: str | None = None
    expected: float | None = None

    @property
    def gain(self) -> float:
        """Nats by which the thought lowered the loss."""
        return 0.0 if self.base is None or self.mixed is None else self.base - self.mixed

    @property
    def depth(self) -> float:
        """Depth of the colour, 0 to 1."""
        return min(1.0, abs(self.gain) / FULL_COLOUR_NATS)


def heat_tokens(item: Mapping[str, Any], cell: Cell) -> list[HeatToken]:
    """The tokens of a document whose thoughts were kept."""
    own, base = item["outcomes"][cell.key], item["outcomes"]["0"]
    weights, gains = (
        own.get(name) or [None] * len(own["nll"]) for name in ("weights", "expected_gains")
    )
    first, *rest = item["tokens"]
    rows = zip(rest, base["nll"], own["nll"], weights, item["thoughts"], gains, strict=True)
    return [HeatToken(first), *(HeatToken(*row) for row in rows)]


def write_heat_map(item: Mapping[str, Any], cell: Cell, title: str, path: Path) -> None:
    """Write the file; raises `OSError` where the disk is full."""
    environment = Environment(
        loader=PackageLoader("training.evaluations", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tokens = heat_tokens(item, cell)
    page = environment.get_template(TEMPLATE).render(
        title=title,
        budget=cell.budget,
        threshold=cell.threshold,
        thoughts=sum(token.thought is not None for token in tokens),
        full=FULL_COLOUR_NATS,
        tokens=tokens,
        saved=sum(token.gain for token in tokens),
        predicted=len(tokens) - 1,
    )
    path.write_text(page, encoding="utf-8")
