"""Who may import whom. A rule says: the code at `path`, less `but_for`, never imports `forbids`."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
VLLM_SIDE = ("quietstar_infer.vllm_plugin", "quietstar_infer.plugin")


@dataclass(frozen=True)
class Rule:
    path: str
    forbids: tuple[str, ...]
    but_for: tuple[str, ...] = ()
    # The rule holds for what is imported indirectly too: the code can be imported without it.
    indirectly: bool = True

    def files(self) -> list[Path]:
        excepted = [ROOT / path for path in self.but_for]
        path = ROOT / self.path
        return [
            file
            for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))
            if not any(file.is_relative_to(path) for path in excepted)
        ]


RULES = [
    Rule(
        "quietstar_infer",
        forbids=("vllm", "fastapi", "server", "training", "loadtest", *VLLM_SIDE),
        but_for=("quietstar_infer/vllm_plugin", "quietstar_infer/plugin.py"),
    ),
    Rule(
        "quietstar_infer",
        forbids=("fastapi", "server", "training", "loadtest"),
        indirectly=False,  # vLLM brings FastAPI
    ),
    Rule("training", forbids=("vllm", "fastapi", "server", "loadtest", *VLLM_SIDE)),
    Rule(
        "server",
        forbids=("vllm", *VLLM_SIDE),
        but_for=("server/vllm_api.py",),
        indirectly=False,  # the others import server.vllm_api
    ),
    Rule("server", forbids=("training", "loadtest"), indirectly=False),
    # Schemas can be read, and used, without the state of a server.
    *(
        Rule(f"server/requests/{module}", forbids=("server.engine", "server.admission"))
        for module in ("schemas.py", "thought_fields.py")
    ),
    # The demonstration is an application of the trainer; the command line imports it when asked.
    Rule("training", forbids=("training.demo",), but_for=("training/demo", "training/cli.py")),
    Rule("loadtest", forbids=("vllm", "quietstar_infer", "server", "training")),
    # Needs the standard library only.
    Rule("benchmarks/code", forbids=("numpy", "quietstar_infer", "server", "training", "loadtest")),
    *(
        # Benchmarks may import everything; nothing imports them.
        Rule(package, forbids=("benchmarks",), indirectly=False)
        for package in ("quietstar_infer", "server", "training", "loadtest")
    ),
    *(
        Rule(f"loadtest/{package}", forbids=tuple(f"loadtest.{other}" for other in others))
        for package, others in (
            ("traffic", ("client", "sending", "analysis", "reporting", "soak")),
            ("client", ("sending", "analysis", "reporting", "soak")),
            ("sending", ("analysis", "reporting", "soak")),
            ("analysis", ("traffic", "client", "sending", "reporting", "soak")),
            ("reporting", ("soak",)),
        )
    ),
]
WITHOUT_IMPORTING = [rule for rule in RULES if rule.indirectly]


def name(rule: Rule) -> str:
    return f"{rule.path} without {rule.forbids[0]}"


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(source: str, package: str) -> Iterator[str]:
    """Every module named in an import statement, wherever it stands, as an absolute name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            # `from a import b` may mean the module a.b.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def forbidden(module: str, forbids: tuple[str, ...]) -> bool:
    return any(module == banned or module.startswith(f"{banned}.") for banned in forbids)


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_no_import_statement_breaks_the_rule(rule: Rule) -> None:
    assert rule.files(), f"nothing at {rule.path}: has the layout moved?"
    offences = []
    for file in rule.files():
        module = module_of(file)
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        for imported in imports(file.read_text(), package):
            if forbidden(imported, rule.forbids):
                offences.append(f"{module} imports {imported}")
    assert not offences


@pytest.mark.parametrize("rule", WITHOUT_IMPORTING, ids=name)
def test_the_code_imports_where_the_forbidden_is_missing(rule: Rule) -> None:
    modules = [module_of(file) for file in rule.files() if file.stem != "__main__"]
    # None in sys.modules makes Python say that the module does not exist.
    code = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({rule.forbids}))
for module in {modules}:
    importlib.import_module(module)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import vllm", ["vllm"]),
        ("import torch, vllm.config as config", ["torch", "vllm.config"]),
        ("from vllm import LLM", ["vllm.LLM"]),
        ("def f():\n    from vllm.v1 import core", ["vllm.v1.core"]),
        ("from . import plugin", ["quietstar_infer.plugin"]),
        ("from .vllm_plugin.model import Model", ["quietstar_infer.vllm_plugin.model.Model"]),
    ],
)
def test_every_form_of_import_is_seen(source: str, found: list[str]) -> None:
    assert list(imports(source, "quietstar_infer")) == found


def test_a_name_that_only_begins_alike_is_not_forbidden() -> None:
    assert forbidden("vllm.v1", ("vllm",))
    assert not forbidden("vllm_client", ("vllm",))
