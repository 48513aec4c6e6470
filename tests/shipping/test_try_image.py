"""scripts/try-image without an image: building one takes root, minutes and Debian's packages."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shipping.conftest import ROOT, tools

SCRIPT = (ROOT / "scripts/try-image").read_text()


def try_image(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/try-image", *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )


def with_system(folder: str) -> str:
    return f"{folder}:/usr/bin:/bin"


def function_of_script(name: str) -> str:
    (text,) = re.findall(rf"^{name}\(\) \{{\n.*?^\}}\n", SCRIPT, re.MULTILINE | re.DOTALL)
    return str(text)


def test_help_explains_every_option() -> None:
    done = try_image("--help")
    assert (done.returncode, done.stderr) == (0, "")
    parsed = set(re.findall(r"--\w+(?=\) \w+=)", function_of_script("main")))
    assert parsed == {"--target", "--base", "--work"}
    assert set(re.findall(r"^ {4}(--\w+) ", done.stdout, re.MULTILINE)) == parsed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "tpu"], "--target is cpu, cuda or both, not 'tpu'"),
        (["--work"], "--work needs a value"),
        (["--pull"], "unknown option '--pull'; see --help"),
    ],
)
def test_a_wrong_call_is_one_line_of_error(arguments: list[str], message: str) -> None:
    done = try_image(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"try-image: {message}\n"


def test_missing_tools_are_named_at_once(tmp_path: Path) -> None:
    done = try_image(PATH=tools(tmp_path / "tools", "bash", "dirname"))
    assert done.returncode == 1
    assert done.stderr == (
        "try-image: missing: debootstrap, buildah, unshare, ip. "
        "Debian, Ubuntu: apt install debootstrap buildah util-linux iproute2\n"
    )


def test_only_root_can_try(tmp_path: Path) -> None:
    nothing = dict.fromkeys(["debootstrap", "buildah", "unshare", "ip"], "exit 9")
    done = try_image(PATH=with_system(tools(tmp_path / "tools", id="echo 1000", **nothing)))
    assert done.returncode == 1
    assert done.stderr == "try-image: only root can mount and change root\n"


def test_a_failed_build_ends_with_its_log_and_removes_the_folder(tmp_path: Path) -> None:
    buildah = '[[ $* == *" build "* ]] || exit 0; echo "no space left"; exit 3'
    scripts = {"id": "echo 0", "debootstrap": "", "unshare": "", "ip": "", "buildah": buildah}
    path = with_system(tools(tmp_path / "tools", **scripts))
    work = tmp_path / "tmp"
    work.mkdir()
    done = try_image("--base", "some/image", PATH=path, PYTHON=sys.executable, TMPDIR=str(work))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        *("no space left", "try-image: cpu: the image could not be built")
    ]
    assert list(work.iterdir()) == []


def test_the_build_is_lent_pips_settings_but_cannot_change_the_hosts(tmp_path: Path) -> None:
    index = tmp_path / "registry/index"
    index.mkdir(parents=True)
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("certificates")
    name = "lend_pip_configuration"
    script = f"work={tmp_path}\n{function_of_script(name)}\n{name}\n"
    done = subprocess.run(
        ["bash", "-euc", script + 'printf "%s\\n" "${lent[@]}"'],
        env={
            "PATH": os.environ["PATH"],
            "PYTHON": sys.executable,
            "PIP_CERT": str(bundle),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_EXTRA_INDEX_URL": f"file://{index}",
        },
        capture_output=True,
        text=True,
    )
    configuration, *lent = done.stdout.splitlines()
    assert configuration == f"--volume={tmp_path}/pip/pip.conf:/etc/pip.conf:ro"
    settings = (tmp_path / "pip/pip.conf").read_text().splitlines()
    assert {f"cert = {bundle}", f"extra-index-url = file://{index}"} <= set(settings)
    copies = {volume.removeprefix("--volume=").split(":")[1]: volume for volume in lent}
    assert set(copies) == {str(bundle), str(index.parent)}
    assert all(volume.endswith(":ro") for volume in lent)
    assert not copies[str(bundle)].startswith(f"--volume={bundle}:")
