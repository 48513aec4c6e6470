"""scripts/install, with a stand-in for Python that records what it would install."""

import sys
from pathlib import Path

import pytest

from tests.shipping.conftest import Sandbox, tools

TORCH = "install -r requirements/torch.txt -c requirements/common.txt -c requirements/cuda.txt"
PROJECT = "install --no-deps --no-build-isolation --quiet --editable ."


def rest(device: str) -> str:
    return f"install --no-deps -r requirements/common.txt -r requirements/{device}.txt"


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


# What scripts/install itself calls.
TOOLS = ("bash", "dirname", "sed", "cat", "id")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_torch_comes_first_and_the_rest_without_dependencies(sandbox: Sandbox, device: str) -> None:
    done = sandbox.run("scripts/install", device, "pins", "dev", "project")
    assert done.returncode == 0, done.stderr
    dev = "install --no-deps -r requirements/dev.txt"
    assert sandbox.calls() == [TORCH, rest(device), dev, PROJECT]


def test_a_second_run_installs_nothing(sandbox: Sandbox) -> None:
    sandbox.run("scripts/install", "cpu", "pins", "project")
    sandbox.calls()
    sandbox.run("scripts/install", "cpu", "pins", "project")
    assert sandbox.calls() == []


def test_a_changed_pin_installs_what_depends_on_it(sandbox: Sandbox) -> None:
    sandbox.run("scripts/install", "cpu", "pins", "dev", "project")
    sandbox.calls()
    append(sandbox.root / "requirements/cpu.txt", "new==1\n")
    sandbox.run("scripts/install", "cpu", "pins", "dev", "project")
    assert sandbox.calls() == [TORCH, rest("cpu"), PROJECT]


def test_a_new_package_of_ours_is_registered(sandbox: Sandbox) -> None:
    sandbox.run("scripts/install", "cpu", "project")
    sandbox.calls()
    (sandbox.root / "loadtest").mkdir()
    (sandbox.root / "loadtest/__init__.py").touch()
    sandbox.run("scripts/install", "cpu", "project")
    assert sandbox.calls() == [PROJECT]


def test_a_failed_install_is_tried_again(sandbox: Sandbox) -> None:
    assert sandbox.run("scripts/install", "cpu", "pins", FAIL="1").returncode != 0
    assert sandbox.calls() == [TORCH]
    assert sandbox.run("scripts/install", "cpu", "pins").returncode == 0
    assert sandbox.calls() == [TORCH, rest("cpu")]


def test_another_device_starts_from_nothing(sandbox: Sandbox) -> None:
    sandbox.run("scripts/install", "cpu", "pins")
    leftover = sandbox.root / ".venv/leftover"
    leftover.touch()
    sandbox.calls()
    sandbox.run("scripts/install", "cuda", "pins")
    assert sandbox.calls() == [TORCH, rest("cuda")]
    assert not leftover.exists()


@pytest.mark.parametrize("arguments", [[], ["tpu"], ["cpu", "nonsense"]])
def test_a_wrong_call_is_one_line_of_error(sandbox: Sandbox, arguments: list[str]) -> None:
    done = sandbox.run("scripts/install", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("install: ")
    assert done.stderr.count("\n") == 1


def without(folder: Path, *parts: str) -> str:
    """A PYTHONPATH on which Python lacks these parts, as Debian's does without their packages."""
    folder.mkdir()
    if "venv" in parts:
        (folder / "ensurepip.py").write_text("raise ImportError")
    if "Python.h" in parts:
        no_headers = f"import sysconfig; sysconfig.get_path = lambda name: {str(folder)!r}"
        (folder / "sitecustomize.py").write_text(no_headers)
    return str(folder)


def unlink_library(sandbox: Sandbox) -> None:
    """Replaces libnuma in the list by a version that no machine has."""
    listing = sandbox.root / "scripts/prerequisites"
    listing.write_text(listing.read_text().replace("libnuma.so.1 ", "libnuma.so.99 "))


def refusal(sandbox: Sandbox, device: str = "cpu", **env: str) -> str:
    """The one line with which an install stops, before it has called pip or made a folder."""
    done = sandbox.run("scripts/install", device, "pins", **env)
    assert done.returncode == 1
    assert sandbox.calls() == []
    assert not (sandbox.root / ".venv").exists()
    prefix = "install: missing: "
    assert done.stderr.startswith(prefix)
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix(prefix).removesuffix("\n")


PYTHON = f"python3.{sys.version_info[1]}"


@pytest.mark.parametrize(
    ("part", "words", "apt", "dnf"),
    [
        ("venv", "Python's venv and ensurepip", "-venv", ""),
        ("Python.h", "Python.h", "-dev", "-devel"),
    ],
)
def test_a_missing_part_of_python_is_named_with_its_packages(
    sandbox: Sandbox, tmp_path: Path, part: str, words: str, apt: str, dnf: str
) -> None:
    assert refusal(sandbox, PYTHONPATH=without(tmp_path / "parts", part)) == (
        f"{words}. Debian, Ubuntu: apt install {PYTHON}{apt}; Fedora: dnf install {PYTHON}{dnf}"
    )


def test_a_missing_compiler_is_named_with_its_packages(sandbox: Sandbox, tmp_path: Path) -> None:
    message = (
        "a C++ compiler ({}). Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++".format
    )
    path = tools(tmp_path / "tools", *TOOLS, "lscpu")
    assert refusal(sandbox, PATH=path) == message("g++")
    assert refusal(sandbox, CXX="no-such-compiler") == message("no-such-compiler")


def test_a_missing_library_is_named_with_its_packages_on_a_cpu(sandbox: Sandbox) -> None:
    unlink_library(sandbox)
    packages = "Debian, Ubuntu: apt install libnuma1; Fedora: dnf install numactl-libs"
    assert refusal(sandbox) == f"libnuma.so.99. {packages}"
    assert sandbox.run("scripts/install", "cuda", "pins").returncode == 0


def test_a_missing_command_that_every_debian_has_is_fedoras(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tools(tmp_path / "tools", *TOOLS, "g++")
    assert refusal(sandbox, PATH=path) == "lscpu. Fedora: dnf install util-linux"


def test_all_that_is_missing_is_named_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    unlink_library(sandbox)
    path = tools(tmp_path / "tools", *TOOLS)
    parts = without(tmp_path / "parts", "venv", "Python.h")
    assert refusal(sandbox, PATH=path, PYTHONPATH=parts) == (
        "Python's venv and ensurepip, Python.h, a C++ compiler (g++), lscpu, libnuma.so.99. "
        f"Debian, Ubuntu: apt install {PYTHON}-venv {PYTHON}-dev g++ libnuma1; "
        f"Fedora: dnf install {PYTHON} {PYTHON}-devel gcc-c++ util-linux numactl-libs"
    )


def test_a_machine_without_python_is_told_the_other_needs_too(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tools(tmp_path / "tools", *TOOLS, "lscpu", "ldconfig")
    assert refusal(sandbox, PATH=path, PYTHON="no-such-python") == (
        "Python >=3.11,<3.13 with venv and Python.h ('no-such-python' is not found; "
        "PYTHON names another), a C++ compiler (g++). "
        "Debian, Ubuntu: apt install python3-venv python3-dev g++; "
        "Fedora: dnf install python3.12 python3.12-devel gcc-c++"
    )


def test_a_python_out_of_range_is_named_with_its_version(sandbox: Sandbox) -> None:
    # Of a range that no real Python is in. Debian has no other version to offer.
    pyproject = sandbox.root / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace(">=3.11,<3.13", ">=3.98,<3.99"))
    version = sys.version.split()[0]
    assert refusal(sandbox) == (
        f"Python >=3.98,<3.99 with venv and Python.h ('{sandbox.root}/fake-python' is "
        f"Python {version}; PYTHON names another). Fedora: dnf install python3.12 python3.12-devel"
    )


def test_prerequisites_are_checked_again_only_for_other_pins(sandbox: Sandbox) -> None:
    assert sandbox.run("scripts/install", "cpu", "pins", "project").returncode == 0
    done = sandbox.run("scripts/install", "cpu", "pins", "project", CXX="no-such-compiler")
    assert (done.returncode, done.stderr) == (0, "")
    append(sandbox.root / "requirements/cpu.txt", "new==1\n")
    done = sandbox.run("scripts/install", "cpu", "pins", CXX="no-such-compiler")
    assert done.stderr.startswith("install: missing: a C++ compiler")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_tcmalloc_is_suggested_on_a_cpu_and_not_required(sandbox: Sandbox, device: str) -> None:
    listing = sandbox.root / "scripts/prerequisites"
    listing.write_text(listing.read_text().replace("minimal.so.4", "minimal.so.99"))
    done = sandbox.run("scripts/install", device, "pins")
    assert done.returncode == 0
    suggestion = (
        "install: the server is faster with what is missing: libtcmalloc_minimal.so.99. "
        "Debian, Ubuntu: apt install libtcmalloc-minimal4; Fedora: dnf install gperftools-libs\n"
    )
    assert (suggestion in done.stdout) is (device == "cpu")


def test_an_environment_that_could_not_be_made_is_made_anew(sandbox: Sandbox) -> None:
    # Debian's venv leaves an interpreter without pip behind when it fails.
    fails = sandbox.root / "failing-python"
    fails.write_text(
        '#!/bin/bash\n[[ "$1 $2" == "-m venv" ]] || exec "$REAL_PYTHON" "$@"\n'
        'mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; exit 1\n'
    )
    fails.chmod(0o755)
    done = sandbox.run("scripts/install", "cpu", "pins", PYTHON=str(fails))
    assert done.stderr == "install: could not make a virtual environment in .venv\n"
    assert sandbox.run("scripts/install", "cpu", "pins").returncode == 0
    assert sandbox.calls() == [TORCH, rest("cpu")]


@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.parametrize("has_it", [False, True])
@pytest.mark.parametrize(
    ("step", "package", "told"),
    [
        ("browser", "chromium", "no Chromium found, the tests of the page will be skipped"),
        ("balancer", "haproxy", "no HAProxy found, the tests of several servers will be skipped"),
    ],
)
def test_a_missing_program_of_the_tests_is_installed_by_root(
    sandbox: Sandbox,
    tmp_path: Path,
    user: int,
    has_it: bool,
    step: str,
    package: str,
    told: str,
) -> None:
    sandbox.run("scripts/install", "cpu")
    asked = tmp_path / "asked"
    scripts = {"id": f"echo {user}", "apt-get": f'echo "$*" >> {asked}'}
    path = tools(
        tmp_path / "tools",
        *("bash", "dirname", "sha256sum", "cat"),
        **scripts | ({package: ""} if has_it else {}),
    )
    done = sandbox.run("scripts/install", "cpu", step, PATH=path)
    assert done.returncode == 0
    assert (f"install: {told}" in done.stderr) is (user != 0 and not has_it)
    installs = ["update", f"install --yes --no-install-recommends {package}"]
    is_installed = user == 0 and not has_it
    assert (asked.read_text().splitlines() if asked.exists() else []) == installs * is_installed
