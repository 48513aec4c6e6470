"""make, scripts/serve and .ci/run, with a stand-in for Python that records its calls."""

from pathlib import Path

import pytest

from tests.shipping.conftest import Sandbox, tools

SYSTEM = "/usr/local/bin:/usr/bin:/bin"


def test_make_lists_its_commands(sandbox: Sandbox) -> None:
    listing = sandbox.run("make").stdout
    assert [line.split()[0] for line in listing.splitlines()] == [
        *("help", "serve", "loadtest", "benchmark", "test", "check", "lint", "format"),
        *("install", "demo-model", "clean"),
    ]


def test_serve_installs_then_starts_the_demonstration_model(sandbox: Sandbox) -> None:
    assert sandbox.run("make", "serve", "DEVICE=cpu").returncode == 0
    *installs, start = sandbox.calls()
    assert len(installs) == 3
    assert start == "-m server models/demo --port 8000 --allow-return-thoughts"
    sandbox.run("make", "serve", "DEVICE=cpu", "PORT=9", "MODEL=mine", "ARGS=--seed 1")
    assert sandbox.calls() == ["-m server mine --port 9 --seed 1"]


@pytest.mark.parametrize(("nvidia_smi", "device"), [("exit 0", "cuda"), ("exit 9", "cpu")])
def test_a_gpu_is_found(sandbox: Sandbox, tmp_path: Path, nvidia_smi: str, device: str) -> None:
    path = tools(tmp_path / "tools", **{"nvidia-smi": nvidia_smi})
    sandbox.run("make", "serve", PATH=f"{path}:{SYSTEM}")
    assert (sandbox.root / ".venv/.device").read_text() == f"{device}\n"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("script", "module"), [("serve", "server"), ("benchmark", "benchmarks.engine")]
)
def test_intel_openmp_is_preloaded_on_the_cpu_only(
    sandbox: Sandbox, device: str, script: str, module: str
) -> None:
    sandbox.run("scripts/install", device, "project")
    library = sandbox.root / ".venv/lib/libiomp5.so"
    library.parent.mkdir()
    library.touch()
    sandbox.calls()
    sandbox.run(f"scripts/{script}", "--model", "mine")
    (call,) = sandbox.calls()
    assert call.endswith(f"-m {module} --model mine")
    assert (str(library) in call) is (device == "cpu")


@pytest.mark.parametrize("script", ["serve", "benchmark"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_library_that_has_vanished_is_one_line_of_error(
    sandbox: Sandbox, device: str, script: str
) -> None:
    sandbox.run("scripts/install", device, "project")
    sandbox.calls()
    # A version that no machine has.
    listing = sandbox.root / "scripts/prerequisites"
    listing.write_text(listing.read_text().replace("libnuma.so.1 ", "libnuma.so.99 "))
    done = sandbox.run(f"scripts/{script}")
    if device == "cpu":
        assert (done.returncode, sandbox.calls()) == (1, [])
        assert done.stderr == (
            f"{script}: missing: libnuma.so.99. Debian, Ubuntu: apt install libnuma1; "
            "Fedora: dnf install numactl-libs\n"
        )
    else:
        assert (done.returncode, len(sandbox.calls())) == (0, 1)


@pytest.mark.parametrize("status", [0, 3])
def test_ci_runs_the_tests_as_a_person_does(sandbox: Sandbox, tmp_path: Path, status: int) -> None:
    path = tools(tmp_path / "tools", make=f"echo make $* CI=$CI $(cat); exit {status}")
    done = sandbox.run(".ci/run", PATH=f"{path}:{SYSTEM}")
    assert done.stdout == "make test CI=true\n"
    assert (done.returncode == 0) is (status == 0)
