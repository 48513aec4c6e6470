"""scripts/prerequisites lists what the libraries link; README and image install all of it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.shipping.conftest import ROOT

SITE_PACKAGES = Path(sys.prefix, "lib", f"python3.{sys.version_info[1]}", "site-packages")

# Every installation has glibc, and the compiler brings its runtime.
OF_THE_TOOLCHAIN = re.compile(
    r"(ld-linux-[\w-]+|libc|libm|libdl|libpthread|librt|libutil|libgcc_s|libstdc\+\+|libgomp)\.so\.\d"
)
OF_NVIDIAS_DRIVER = re.compile(r"(libcuda|libnvidia-\w+)\.so\.\d")


class Prerequisite(NamedTuple):
    need: str
    device: str
    apt: str
    dnf: str


def bash(script: str) -> str:
    """What the script prints, with the functions of scripts/prerequisites."""
    sourced = f". scripts/prerequisites; {script}"
    done = subprocess.run(["bash", "-euc", sourced], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def prerequisites() -> list[Prerequisite]:
    lines = [line for line in bash("prerequisites").splitlines() if not line.startswith("#")]
    return [Prerequisite(*line.split()) for line in lines]


def listed_packages(manager: str, *, speed: bool) -> set[str]:
    rows = [row for row in prerequisites() if speed or row.device != "speed"]
    return {getattr(row, manager) for row in rows} - {"-"}


def linked_by(*packages: str) -> set[str]:
    """Libraries that these Python packages' shared objects need from outside the environment."""
    installed = {path.name for path in Path(sys.prefix, "lib").rglob("*.so*")}
    objects = [path for name in packages for path in SITE_PACKAGES.glob(f"{name}/**/*.so*")]
    done = subprocess.run(
        ["readelf", "--dynamic", *map(str, objects)], capture_output=True, text=True, check=True
    )
    return set(re.findall(r"\(NEEDED\).*\[(.+)\]", done.stdout)) - installed


def test_the_libraries_are_those_that_vllm_and_torch_link() -> None:
    device = Path(sys.prefix, ".device").read_text().strip()
    linked = {
        name
        for name in linked_by("vllm", "vllm*.libs", "torch", "torch*.libs", "triton")
        if not OF_THE_TOOLCHAIN.match(name) and not OF_NVIDIAS_DRIVER.match(name)
    }
    listed = set(bash(f"needs {device} '*.so.*'").split())
    assert linked == listed, (
        f"vLLM and torch link {sorted(linked)}, and scripts/prerequisites lists {sorted(listed)}: "
        "add what is missing with its packages, and remove what is no longer linked"
    )


def test_this_machine_lacks_nothing() -> None:
    device = Path(sys.prefix, ".device").read_text().strip()
    assert bash(f"lacks {sys.executable} $(needs {device})") == ""


@pytest.mark.parametrize("manager", ["apt", "dnf"])
def test_the_readmes_commands_install_the_list(manager: str) -> None:
    readme = (ROOT / "README.md").read_text()
    (command,) = re.findall(rf"^sudo {manager} install (.+)$", readme, re.MULTILINE)
    assert set(command.split()) == listed_packages(manager, speed=False) | {"make"}
    faster = listed_packages(manager, speed=True) - listed_packages(manager, speed=False)
    assert all(f"`{package}`" in readme for package in faster)


def test_the_image_has_the_list() -> None:
    # The Python of the Dockerfile's base image has all its parts.
    dockerfile = (ROOT / "Dockerfile").read_text()
    (command,) = re.findall(r"apt-get install --yes --no-install-recommends (.+) \\", dockerfile)
    listed = listed_packages("apt", speed=True)
    assert set(command.split()) == {name for name in listed if not name.startswith("python3")}


def test_needs_are_those_of_the_device() -> None:
    assert bash("needs cuda").split() == ["Python", "venv", "Python.h", "g++"]
    assert bash("needs cpu '*.so.*'").split() == ["libnuma.so.1"]


def test_packages_are_named_once_and_only_where_there_are_any() -> None:
    assert bash("packages apt Python venv Python.h lscpu") == "python3-venv python3-dev\n"
    assert bash("packages dnf lscpu libnuma.so.1") == "util-linux numactl-libs\n"


def test_a_library_is_found_where_the_loader_looks(tmp_path: Path) -> None:
    missing = "libquietstar_test.so.1"
    assert bash(f"lacks {sys.executable} {missing}") == f"{missing}\n"
    source = tmp_path / "empty.c"
    source.touch()
    subprocess.run(["g++", "-shared", "-o", str(tmp_path / missing), str(source)], check=True)
    assert bash(f"LD_LIBRARY_PATH={tmp_path} lacks {sys.executable} {missing}") == ""
