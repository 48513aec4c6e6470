"""scripts/install, with a Python that only pretends."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.shipping.conftest import Sandbox

TORCH = "install -r requirements/torch.txt -c requirements/common.txt -c requirements/cuda.txt"
PROJECT = "install --no-deps --no-build-isolation --quiet --editable ."


def rest(device: str) -> str:
    return f"install --no-deps -r requirements/common.txt -r requirements/{device}.txt"


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def only(folder: Path, *tools: str, **scripts: str) -> str:
    """A PATH with nothing but Python, these tools of the system, and scripts of the test's."""
    folder.mkdir()
    (folder / "python3").symlink_to(sys.executable)
    for tool in tools:
        (folder / tool).symlink_to(shutil.which(tool) or "")
    for name, script in scripts.items():
        (folder / name).write_text(f"#!{shutil.which('bash')}\n{script}\n")
        (folder / name).chmod(0o755)
    return str(folder)


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


def test_another_python_is_one_line_of_error(sandbox: Sandbox) -> None:
    # The sandbox's Python calls itself 3.99; the range no real one lies in makes it refuse.
    pyproject = sandbox.root / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace(">=3.11,<3.13", ">=3.98,<3.99"))
    done = sandbox.run("scripts/install", "cpu", "pins")
    assert done.returncode == 1
    assert done.stderr == (
        "install: Python 3.99 will not do: vLLM's pins need >=3.98,<3.99; set PYTHON\n"
    )
    done = sandbox.run("scripts/install", "cpu", "pins", PYTHON="no-such-python")
    assert done.stderr == (
        "install: 'no-such-python' not found; set PYTHON to a Python interpreter\n"
    )


def test_a_missing_compiler_is_one_line_of_error(sandbox: Sandbox, tmp_path: Path) -> None:
    path = only(tmp_path / "tools", "bash", "dirname")
    done = sandbox.run("scripts/install", "cpu", "pins", PATH=path)
    assert done.returncode == 1
    assert done.stderr.startswith("install: no C++ compiler found")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.parametrize("has_browser", [False, True])
def test_a_missing_browser_is_installed_by_root(
    sandbox: Sandbox, tmp_path: Path, user: int, has_browser: bool
) -> None:
    sandbox.run("scripts/install", "cpu")
    asked = tmp_path / "asked"
    scripts = {"id": f"echo {user}", "apt-get": f'echo "$*" >> {asked}'}
    path = only(
        tmp_path / "tools",
        *("bash", "dirname", "sha256sum", "cat"),
        **scripts | ({"chromium": ""} if has_browser else {}),
    )
    done = sandbox.run("scripts/install", "cpu", "browser", PATH=path)
    assert done.returncode == 0
    told = "install: no Chromium found, the tests of the page will be skipped"
    assert (told in done.stderr) is (user != 0 and not has_browser)
    installs = ["update", "install --yes --no-install-recommends chromium"]
    is_installed = user == 0 and not has_browser
    assert (asked.read_text().splitlines() if asked.exists() else []) == installs * is_installed
