"""The rules of the layout: names, folders, maps of packages, import circles."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("quietstar_infer", "server", "training", "loadtest", "benchmarks")
MAX_MODULES = 16
# An entry of a package's map: one or more names, two spaces or more, what is there.
ENTRY = re.compile(r"^ *((?:[\w.]+(?:\.\w+|/))(?:, [\w.]+(?:\.\w+|/))*)  +\S")


def modules(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.py"))


def folders(package: str) -> list[Path]:
    """A package and all packages in it."""
    return sorted(file.parent for file in (ROOT / package).rglob("__init__.py"))


ALL_FOLDERS = [folder for package in PACKAGES for folder in folders(package)]
TEST_FOLDERS = sorted({file.parent for file in (ROOT / "tests").rglob("*.py")})


def folder_name(folder: Path) -> str:
    return str(folder.relative_to(ROOT))


def public_names(source: str) -> set[str]:
    """Classes, functions and constants that a module defines, imported ones not counted."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                names.add(node.name)
            case ast.Assign():
                for target in node.targets:
                    parts = target.elts if isinstance(target, ast.Tuple) else [target]
                    names.update(part.id for part in parts if isinstance(part, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_public_name_is_defined_in_two_files(package: str) -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for file in sorted((ROOT / package).rglob("*.py")):
        for name in public_names(file.read_text()):
            places[name].append(str(file.relative_to(ROOT)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


@pytest.mark.parametrize("folder", [*ALL_FOLDERS, *TEST_FOLDERS], ids=folder_name)
def test_no_folder_has_more_modules_than_a_reader_can_hold(folder: Path) -> None:
    names = [file.name for file in modules(folder) if file.name != "__init__.py"]
    assert len(names) <= MAX_MODULES, names


@pytest.mark.parametrize("folder", ALL_FOLDERS, ids=folder_name)
def test_a_packages_docstring_names_every_module_and_no_other(folder: Path) -> None:
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    described = [
        name
        for line in docstring.splitlines()
        if (entry := ENTRY.match(line))
        for name in entry[1].split(", ")
    ]
    there = {file.name for file in modules(folder)} - {"__init__.py", "__main__.py"}
    there |= {f"{sub.parent.name}/" for sub in folder.glob("*/__init__.py")}
    # Folders of data may be described; they are none of Python's packages.
    data = {f"{sub.name}/" for sub in folder.iterdir() if sub.is_dir()} | {"__main__.py"}
    assert len(described) == len(set(described)), "described twice"
    assert there - set(described) == set(), "not described"
    assert set(described) - there - data == set(), "described, but not there"


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_at_import_time(source: str, known: set[str]) -> Iterator[str]:
    """Modules among `known` that a module imports while it is itself imported."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                continue  # imported when it is called
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                waiting.extend(node.orelse)
                continue
            case ast.Import():
                yield from (alias.name for alias in node.names if alias.name in known)
            case ast.ImportFrom(module=str(module)):
                for alias in node.names:
                    name = f"{module}.{alias.name}"
                    if name in known:
                        yield name
                    elif module in known:
                        yield module
        waiting.extend(ast.iter_child_nodes(node))


def test_no_import_circle() -> None:
    files = {module_of(f): f for package in PACKAGES for f in (ROOT / package).rglob("*.py")}
    graph = {
        module: set(imported_at_import_time(file.read_text(), set(files))) - {module}
        for module, file in files.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_import_statements_are_found_where_they_run_at_import_time() -> None:
    source = """
import a.b
from a import c, d
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from a import never
class Class:
    import a.inside
def function():
    import a.later
"""
    known = {"a", "a.b", "a.c", "a.inside", "a.later", "a.never"}
    assert set(imported_at_import_time(source, known)) == {"a", "a.b", "a.c", "a.inside"}


def test_public_names_are_those_a_module_defines() -> None:
    source = "from x import y\nA, _B = 1, 2\nC: int = 3\ndef d(): e = 1\nclass F: g = 1\nh[0] = 1\n"
    assert public_names(source) == {"A", "C", "d", "F"}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        # Parsed at the edge and in the scheduler; everything else gets the object.
        (
            "from_mapping",
            {"server/requests/thought_fields.py", "quietstar_infer/vllm_plugin/scheduler.py"},
        ),
        ("_build_attention_metadata", {"quietstar_infer/vllm_plugin/multi_step.py"}),
    ],
)
def test_what_has_one_place_is_called_there_only(name: str, files: set[str]) -> None:
    calling = {
        str(file.relative_to(ROOT))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == name
    }
    assert calling == files
