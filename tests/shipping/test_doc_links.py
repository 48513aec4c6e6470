"""Links and file names in the documentation lead somewhere."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.shipping.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
# `training/thoughts/model.py`, say: a path of this repository that stands in the text.
NAMED_FILE = re.compile(
    r"`((?:quietstar_infer|server|training|loadtest|benchmarks|tests|scripts|models|recipes)/[\w./-]+)`"
)


def anchor(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


@cache
def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {anchor(heading) for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text()):
        path, _, fragment = link.partition("#")
        if ":" in path:
            continue  # another site's
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_named_in_the_text_is_there(page: Path) -> None:
    named = [name for name in NAMED_FILE.findall(page.read_text()) if "..." not in name]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_anchors_are_githubs() -> None:
    assert anchor("On a GPU") == "on-a-gpu"
    assert anchor("Health, signals, exit codes") == "health-signals-exit-codes"
