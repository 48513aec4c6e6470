"""The command that a ready server prints can be pasted into a shell."""

import json
import subprocess
from pathlib import Path

import pytest

from quietstar_infer.params import ThoughtLimits
from server.greeting import cache, curl_command, thinking


def bodies(command: str, folder: Path) -> list[dict[str, object]]:
    """The bodies that curl would send."""
    curl = folder / "curl"
    # Prints its last argument, the one of -d.
    curl.write_text('#!/bin/sh\nfor last; do :; done; printf "%s" "$last"\n')
    curl.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", command],
        env={"PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("prompt", ["plain", 'it\'s "quoted" $HOME `ls` \\', "Grüße\nund mehr"])
def test_the_shell_passes_the_prompt_on_unchanged(tmp_path: Path, prompt: str) -> None:
    command = curl_command("http://localhost:1", prompt, budget=12, has_api_key=False)
    sent = bodies(command, tmp_path)
    assert [body["prompt"] for body in sent] == [prompt, prompt]
    assert [body["thought_budget"] for body in sent] == [0, 12]


def test_without_thinking_there_is_one_request(tmp_path: Path) -> None:
    command = curl_command("http://localhost:1", "a", budget=0, has_api_key=False)
    assert [body["thought_budget"] for body in bodies(command, tmp_path)] == [0]


def test_the_command_reads_the_key_from_a_variable() -> None:
    assert "$API_KEY" in curl_command("http://localhost:1", "a", budget=1, has_api_key=True)


def test_the_kv_cache_in_words() -> None:
    assert cache(131072, 1 << 29) == (
        "Its KV cache holds 131,072 tokens (0.5 GiB, --kv-cache-memory-bytes)."
    )
    assert cache(131072, None) == "Its KV cache holds 131,072 tokens."
    assert cache(262144, 1 << 30, replicas=2) == (
        "The KV caches of 2 replicas hold 262,144 tokens (1.0 GiB, --kv-cache-memory-bytes for "
        "each)."
    )


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (ThoughtLimits(0, 0), "thinking is off"),
        (ThoughtLimits(16, 12), "thinks 12 tokens before each, at most 16"),
        (
            ThoughtLimits(16, 12, default_threshold=0.1),
            "thinks 12 tokens where that may save more than 0.1 nats, at most 16",
        ),
    ],
)
def test_the_defaults_in_words(limits: ThoughtLimits, words: str) -> None:
    assert thinking(limits) == words
