"""The images' properties, and their install steps, carried out with a stand-in for Python.

These tests need no Docker engine. scripts/try-image builds and starts the images without one, and
hadolint (make lint) checks the Dockerfile.
"""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.shipping.conftest import ROOT, Sandbox, copy

Instruction = tuple[str, str]


@dataclass
class Stage:
    name: str
    base: str
    own: list[Instruction] = field(default_factory=list)


def instructions() -> Iterator[Instruction]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            keyword, _, value = line.partition(" ")
            yield keyword, " ".join(value.split())


def stages() -> dict[str, Stage]:
    found: list[Stage] = []
    for keyword, value in instructions():
        if keyword == "FROM":
            base, _, name = value.partition(" AS ")
            found.append(Stage(name, base))
        else:
            found[-1].own.append((keyword, value))
    return {stage.name: stage for stage in found}


def build_of(name: str) -> list[Instruction]:
    """All instructions of an image, those of the stages it is built on first."""
    stage = stages().get(name)
    return [*build_of(stage.base), *stage.own] if stage else []


def last(keyword: str, image: str) -> str:
    return [value for word, value in build_of(image) if word == keyword][-1]


both_images = pytest.mark.parametrize("image", ["cpu", "cuda"])


def test_cuda_is_what_a_plain_build_makes() -> None:
    assert list(stages())[-1] == "cuda"


def test_base_images_are_pinned_to_a_python_that_the_pins_are_for() -> None:
    outside = {stage.base for stage in stages().values()} - set(stages())
    for image in outside:
        assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", image)


@both_images
def test_the_server_is_not_root_and_its_health_is_checked(image: str) -> None:
    assert int(last("USER", image)) != 0
    health = last("HEALTHCHECK", image)
    assert "http://127.0.0.1:8000/health" in health
    assert json.loads(health.partition(" CMD ")[2])[0] == "/app/.venv/bin/python"
    (minutes,) = re.findall(r"--start-period=(\d+)m", health)
    assert int(minutes) >= 10
    assert last("EXPOSE", image) == "8000"


@both_images
def test_a_stop_signal_reaches_the_server_itself(image: str) -> None:
    # Exec form, and a script that ends in exec: the server is process 1.
    assert json.loads(last("ENTRYPOINT", image))[0] == "/app/scripts/serve"
    # Without arguments: the demonstration model, which is in the image.
    assert json.loads(last("CMD", image))[:2] == ["--model", "models/demo"]
    assert (ROOT / "scripts/serve").read_text().splitlines()[-1].startswith("exec ")
    assert last("STOPSIGNAL", image) == "SIGTERM"


@both_images
def test_models_are_kept_in_a_volume_that_the_server_may_write(image: str) -> None:
    volume = last("VOLUME", image)
    assert re.search(rf"HF_HOME={volume}/\S+", last("ENV", image))
    created, *_ = (value for word, value in build_of(image) if word == "RUN")
    assert re.search(rf"install --directory --owner=quietstar .*{volume} ", created)


def test_a_cpu_container_gets_the_shared_memory_that_vllm_takes() -> None:
    # As try-image has found it enough, docker run and compose are told to give it.
    tried = re.findall(r"size=(\w+),", (ROOT / "scripts/try-image").read_text())
    documented = re.findall(r"--shm-size (\w+) .*quietstar:cpu", (ROOT / "Dockerfile").read_text())
    composed = re.findall(r"shm_size: (\w+)", (ROOT / "monitoring/compose.yaml").read_text())
    assert tried == documented == composed == ["1g"]


@both_images
def test_the_install_steps_are_those_of_make_and_work(
    image: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    app = Sandbox(tmp_path / "app")
    app.root.mkdir()
    for keyword, value in build_of(image):
        *sources, _ = value.split()
        if keyword == "COPY":
            copy(in_context() if sources == ["."] else sources, app.root)
        elif keyword == "RUN" and not value.startswith("apt-get"):
            done = app.run(*shlex.split(value))
            assert done.returncode == 0, done.stderr
    installed = app.calls()
    sandbox.run("make", "serve", f"DEVICE={image}")
    assert installed == sandbox.calls()[:-1]  # the last one starts the server
    entrypoint = json.loads(last("ENTRYPOINT", image))
    app.run(*[part.replace("/app", str(app.root)) for part in entrypoint], "--model", "mine")
    assert app.calls() == ["-m server --host 0.0.0.0 --model mine"]


def in_context() -> list[str]:
    """What .dockerignore lets through: it lists all that is wanted."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    return [line[1:] for line in lines if line.startswith("!")]
