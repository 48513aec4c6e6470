"""What cannot work is refused before an engine starts, in one sentence."""

from pathlib import Path
from typing import Any

import pytest
from vllm.engine.arg_utils import EngineArgs
from vllm.platforms import current_platform

from quietstar_infer.errors import CheckpointError, UnsupportedError
from quietstar_infer.params import ThoughtLimits
from quietstar_infer.vllm_plugin.options import (
    ThinkingOptions,
    check_vllm_config,
    prepare_engine_args,
    thinking_setup,
)
from tests.support.checkpoints import write_random_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("options"), "mistral")


@pytest.mark.parametrize(
    ("engine_args", "words"),
    [
        ({"nnodes": 2, "data_parallel_size": 2}, "replicas that are on several machines each"),
        ({"data_parallel_backend": "ray"}, "data parallelism by Ray"),
        ({"data_parallel_multi_port_external_lb": True}, "several servers at once"),
        ({"decode_context_parallel_size": 2}, "context parallelism"),
        ({"speculative_config": {"method": "ngram"}}, "speculative decoding"),
        ({"runner": "pooling"}, "pooling"),
        ({"convert": "embed"}, "pooling"),
        ({"scheduler_cls": "my.Scheduler"}, "a scheduler of your own"),
        ({"worker_cls": "my.Worker"}, "a worker of your own"),
        ({"enable_prompt_embeds": True}, "prompt embeddings"),
        ({"additional_config": "[1]"}, "must be a JSON object"),
        ({"skip_tokenizer_init": True}, "texts that nobody tokenizes"),
        ({"distributed_executor_backend": "external_launcher"}, "an executor of your own"),
        ({"distributed_executor_backend": "nosuch"}, "an executor of your own"),
        ({"enable_lora": True}, "merge the adapter into its base model"),
    ],
)
def test_unsupported_options(checkpoint: Path, engine_args: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        prepare_engine_args(EngineArgs(model=str(checkpoint), **engine_args), ThinkingOptions())


def test_the_v2_runner_is_refused(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    with pytest.raises(UnsupportedError, match="V2 model runner"):
        prepare_engine_args(EngineArgs(model=str(checkpoint)), ThinkingOptions())


def test_too_few_batched_tokens_are_refused(checkpoint: Path) -> None:
    args = EngineArgs(
        model=str(checkpoint), dtype="float32", max_num_seqs=64, max_num_batched_tokens=64
    )
    prepare_engine_args(args, ThinkingOptions())
    with pytest.raises(UnsupportedError, match="it must be at least 65"):
        check_vllm_config(args.create_engine_config())


def test_thoughts_that_the_context_has_no_room_for_are_refused(checkpoint: Path) -> None:
    """A prompt and an answer of one token, START, the thought, END where the answer's was."""
    for budget, is_allowed in ((13, True), (14, False), (1_000_000_000, False)):
        args = EngineArgs(model=str(checkpoint), dtype="float32", max_model_len=16)
        prepare_engine_args(args, ThinkingOptions(max_thought_budget=budget))
        config = args.create_engine_config()
        if is_allowed:
            check_vllm_config(config)
            continue
        with pytest.raises(UnsupportedError, match="this one has 16"):
            check_vllm_config(config)


@pytest.mark.skipif(not current_platform.is_cpu(), reason="of the CPU")
def test_heads_that_the_cpu_has_no_attention_for_are_refused(tmp_path: Path) -> None:
    checkpoint = write_random_checkpoint(tmp_path, "llama", head_dim=24)
    args = EngineArgs(model=str(checkpoint), dtype="float32")
    prepare_engine_args(args, ThinkingOptions())
    with pytest.raises(CheckpointError, match=r"size of 24 .* takes 32, 64"):
        check_vllm_config(args.create_engine_config())


def test_another_tokenizer_is_refused(checkpoint: Path) -> None:
    demo = Path(__file__).parents[3] / "models" / "demo"
    for name, words in (
        (str(demo), "is not this model's"),
        ("/nowhere", "has no usable tokenizer"),
    ):
        with pytest.raises(UnsupportedError, match=f"^--tokenizer.*{words}"):
            prepare_engine_args(
                EngineArgs(model=str(checkpoint), tokenizer=name), ThinkingOptions()
            )
    prepare_engine_args(
        EngineArgs(model=str(checkpoint), tokenizer=str(checkpoint)), ThinkingOptions()
    )


def test_another_activation_is_refused(tmp_path: Path) -> None:
    checkpoint = write_random_checkpoint(tmp_path, "llama", hidden_act="gelu")
    with pytest.raises(CheckpointError, match="hidden_act is 'gelu'"):
        prepare_engine_args(EngineArgs(model=str(checkpoint)), ThinkingOptions())


def test_another_base_model_is_refused(tmp_path: Path) -> None:
    checkpoint = write_random_checkpoint(tmp_path, "mistral")
    config = checkpoint / "config.json"
    config.write_text(config.read_text().replace('"model_type": "mistral"', '"model_type": "gpt2"'))
    with pytest.raises(CheckpointError, match="the base models that can think are llama, mistral"):
        prepare_engine_args(EngineArgs(model=str(checkpoint)), ThinkingOptions())


@pytest.mark.parametrize("model", ["/nowhere/at/all", "not a name"])
def test_a_missing_model_is_refused(model: str) -> None:
    with pytest.raises(CheckpointError, match="neither a folder nor a hub name"):
        prepare_engine_args(EngineArgs(model=model), ThinkingOptions())


def test_architectures_do_not_matter(tmp_path: Path) -> None:
    checkpoint = write_random_checkpoint(tmp_path, "llama")
    config = checkpoint / "config.json"
    config.write_text(config.read_text().replace("LlamaForCausalLM", "QuietForCausalLM"))
    args = EngineArgs(model=str(checkpoint), dtype="float32")
    prepare_engine_args(args, ThinkingOptions())
    assert args.create_engine_config().model_config.architecture == "QuietStarLlamaForCausalLM"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (ThinkingOptions(), ThoughtLimits(16, 5, 1.0)),
        (ThinkingOptions(max_thought_budget=3), ThoughtLimits(3, 3)),
        (ThinkingOptions(max_thought_budget=0), ThoughtLimits(0, 0)),
        (ThinkingOptions(default_thought_budget=0), ThoughtLimits(16, 0)),
        (ThinkingOptions(default_thought_temperature=0.0), ThoughtLimits(16, 5, 0.0)),
    ],
)
def test_limits(checkpoint: Path, options: ThinkingOptions, expected: ThoughtLimits) -> None:
    args = EngineArgs(model=str(checkpoint), dtype="float32")
    prepare_engine_args(args, options)
    assert thinking_setup(args.create_engine_config()).limits == expected


def test_a_default_above_the_largest_budget_is_refused(checkpoint: Path) -> None:
    options = ThinkingOptions(max_thought_budget=4, default_thought_budget=5)
    with pytest.raises(ValueError, match="must be from 0 to 4"):
        prepare_engine_args(EngineArgs(model=str(checkpoint)), options)


def test_an_unprepared_engine_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UnsupportedError, match="prepare_engine_args"):
        thinking_setup(EngineArgs(model=str(checkpoint)).create_engine_config())
