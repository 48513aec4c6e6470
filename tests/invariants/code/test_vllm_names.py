"""The private names of vLLM that this project uses are those of docs/vllm.md, unchanged."""

import ast

import pytest

from quietstar_infer.plugin import VLLM_VERSION, installed_vllm_version
from tests.support import vllm_names
from tests.support.vllm_names import Row, fingerprint, table, used_names

ROWS = table()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_name_is_as_it_was(row: Row) -> None:
    now, version = fingerprint(row.name), installed_vllm_version()
    assert now is not None, (
        f"vLLM {version} has no {row.name} any more, which is used for this: {row.purpose}. "
        "Find what has taken its place, and correct docs/vllm.md"
    )
    assert now == row.fingerprint, (
        f"vLLM {version} has changed {row.name}, which is used for this: {row.purpose}. Read what "
        f"is different; if we need not change, write `{now}` into docs/vllm.md"
    )


def test_no_name_is_listed_twice() -> None:
    names = [row.name for row in ROWS]
    assert len(names) > 70
    assert sorted(names) == sorted(set(names))


def test_every_name_that_our_classes_use_is_listed() -> None:
    listed = {row.last_name for row in ROWS}
    missing = {name: file for name, file in used_names().items() if name not in listed}
    assert not missing, (
        f"names of vLLM's that docs/vllm.md lacks, by file: {missing}. "
        "Add a row for each; this test then says which fingerprint"
    )


def test_the_page_names_the_version() -> None:
    assert VLLM_VERSION in vllm_names.TABLE.read_text()


@pytest.mark.parametrize(
    ("before", "after", "is_same"),
    [
        ("def f(a):\n    return a", 'def f(a):\n    "doc"\n    return a  # why', True),
        ("def f(a):\n    return a", "def f(a, b=1):\n    return a", False),
        ("def f(a):\n    return a", "def f(a):\n    return a + 1", False),
        ("class f:\n    a: int", "class f:\n    a: dict", False),
        ("class f:\n    def g(self):\n        return 1", "class f:\n    def g(self): ...", True),
        ("f = 1", "f = {}", False),
    ],
)
def test_a_fingerprint_is_of_what_counts(
    before: str, after: str, is_same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    prints = []
    for text in (before, after):
        monkeypatch.setattr(vllm_names, "_parsed", lambda _, text=text: ast.parse(text))
        prints.append(fingerprint("vllm/made_up.py::f"))
    assert None not in prints
    assert (prints[0] == prints[1]) == is_same
