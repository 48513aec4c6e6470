"""Runs of a few steps: what they write, how they are resumed, and how they stop."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import datasets  # type: ignore[import-untyped]
import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import integration_utils

from tests.support.checkpoints import write_random_checkpoint
from tests.support.training.runs import small_recipe
from training.cli import main
from training.errors import TrainingStopped, UsageError
from training.trainer.arguments import training_arguments
from training.trainer.build import build, load_tokenizer_of
from training.trainer.callbacks import CollapseWatch
from training.trainer.data import load_pieces
from training.trainer.metrics import METRICS
from training.trainer.recipe import Recipe, load_recipe, save_recipe
from training.trainer.run import check_output, train
from training.trainer.trainer import QuietTrainer

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        cached = tmp_path_factory.mktemp("cache")
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", cached)
        yield


class Recorder(TrainerCallback):
    """A logger like transformers' own: keeps what was reported."""

    reported: ClassVar[list[tuple[str, dict[str, float]]]] = []

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self.reported.append((str(args.run_name), dict(logs or {})))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe whose run has ended, which a logger has followed."""
    recipe = small_recipe(tmp_path_factory.mktemp("finished"), run={"report_to": ["recorder"]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "recorder", Recorder)
        train(recipe)
    return replace(recipe, run=replace(recipe.run, report_to=()))


def weights(recipe: Recipe, step: int) -> dict[str, Tensor]:
    return load_file(recipe.run.output / f"checkpoint-{step}" / "model.safetensors")


def history(recipe: Recipe, step: int) -> list[dict[str, float]]:
    state = recipe.run.output / f"checkpoint-{step}" / "trainer_state.json"
    log: list[dict[str, float]] = json.loads(state.read_text())["log_history"]
    return log


def changed(recipe: Recipe, folder: Path, **values: Any) -> Recipe:
    return replace(recipe, run=replace(recipe.run, output=folder, **values))


def test_what_a_run_writes(finished: Recipe) -> None:
    names = {path.name for path in finished.run.output.iterdir()}
    assert names == {
        *("checkpoint-2", "checkpoint-4", "model", "recipe.yaml", "tensorboard", "thoughts.jsonl")
    }
    written = load_recipe(finished.run.output / "recipe.yaml")
    assert written == replace(finished, run=replace(finished.run, report_to=("recorder",)))


def test_the_log_has_all_metrics(finished: Recipe) -> None:
    log = history(finished, 4)
    trained = [entry for entry in log if "loss" in entry]
    assert [entry["step"] for entry in trained] == [1, 2, 3, 4]
    for entry in trained:
        assert entry.keys() >= {*METRICS[1:], "tokens_per_second", "grad_norm", "learning_rate"}
    evaluated = [entry for entry in log if "eval_nll" in entry]
    assert [entry["step"] for entry in evaluated] == [0, 2, 4]
    for entry in evaluated:
        difference = entry["eval_base_nll"] - entry["eval_nll"]
        assert entry["eval_gain"] == pytest.approx(difference)
    assert evaluated[0]["eval_nll"] != evaluated[2]["eval_nll"]


def test_other_loggers_are_told_what_the_log_has(finished: Recipe) -> None:
    assert {name for name, _ in Recorder.reported} == {str(finished.run.output)}
    told = [logs for _, logs in Recorder.reported if "loss" in logs or "eval_nll" in logs]
    logged = [
        {name: value for name, value in entry.items() if name != "step"}
        for entry in history(finished, 4)
        if "loss" in entry or "eval_nll" in entry
    ]
    assert told == logged


def test_rates_fall_by_the_schedule(finished: Recipe) -> None:
    rates = [entry["learning_rate"] for entry in history(finished, 4) if "loss" in entry]
    settings = finished.optimisation
    shares = [1, 1, 10 / 11, 9 / 11]  # warm-up, then on the way to 0 at step 12
    assert rates == pytest.approx([share * settings.learning_rate for share in shares])
    with pytest.raises(UsageError, match="decay_steps is 12, so that the learning rate would be 0"):
        training_arguments(changed(finished, finished.run.output, steps=13), resumed=False)


def test_a_budget_of_0_trains_the_base_model_alone(finished: Recipe, tmp_path: Path) -> None:
    plain = changed(finished, tmp_path / "run", eval_every=1, keep=4)
    plain = replace(
        plain,
        thinking=replace(plain.thinking, budget=0),
        objective=replace(plain.objective, talk_weight=0.0, policy_weight=0.0),
    )
    seen: list[int] = []

    class Watch(TrainerCallback):
        def on_evaluate(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
            seen.append(state.global_step)

    train(plain, callbacks=[Watch()])
    assert seen == [0, 1, 2, 3, 4]
    first, last = weights(plain, 1), weights(plain, 4)
    moved = {name for name in last if not torch.equal(first[name], last[name])}
    assert any(name.startswith("thinker.trunk.model.layers") for name in moved)
    log = [entry for entry in history(plain, 4) if "loss" in entry]
    assert all(entry["loss"] == pytest.approx(entry["base_nll"] / 2) for entry in log)


def evaluated(recipe: Recipe) -> dict[str, float]:
    """The evaluation of a model before its first step."""
    built = build(recipe)
    pieces = load_pieces(recipe, built.tokenizer)
    return QuietTrainer(recipe, built, pieces, training_arguments(recipe, resumed=False)).evaluate()


def test_every_text_of_an_evaluation_counts_once(finished: Recipe, tmp_path: Path) -> None:
    """Whatever the size of a batch: also the last texts, which do not fill one."""

    def of(documents: int, at_once: int) -> dict[str, float]:
        run = changed(finished, tmp_path / f"{documents}-{at_once}", sequences_per_device=at_once)
        data = replace(finished.data, pieces="window", eval_documents=documents)
        return evaluated(replace(run, data=data))

    alone = [of(number, 1) for number in range(1, 8)]
    assert len({metrics["eval_nll"] for metrics in alone}) == 7
    for number, metrics in enumerate(alone, start=1):
        for at_once in (2, 4):
            assert of(number, at_once) == pytest.approx(metrics, rel=1e-5)
    run = replace(finished, data=replace(finished.data, pieces="window", eval_documents=7))
    built = build(run)
    ids_BT = torch.tensor(
        [row["input_ids"] for row in load_pieces(run, built.tokenizer).evaluation]
    )
    with torch.no_grad():
        output = built.model.thinker.base_model(ids_BT, labels=ids_BT)
    assert alone[6]["eval_base_nll"] == pytest.approx(float(output.loss), rel=1e-5)


def test_a_run_does_not_depend_on_how_many_sequences_a_device_takes(
    finished: Recipe, tmp_path: Path
) -> None:
    """Nor where a pass over the data ends: 15 pieces are three steps, the next three follow."""
    data = replace(finished.data, pieces="window", eval_documents=25)
    runs = [
        replace(changed(finished, tmp_path / str(n), steps=6, sequences_per_device=n), data=data)
        for n in (4, 1)
    ]
    for run in runs:
        train(run)
    expected = weights(runs[0], 6)
    for name, found in weights(runs[1], 6).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-3, atol=1e-5, msg=name)


def test_tensorboard_has_metrics_and_thoughts(finished: Recipe) -> None:
    board = EventAccumulator(str(finished.run.output / "tensorboard"))
    board.Reload()
    scalars = board.Tags()["scalars"]
    assert {"train/reward", "train/mixing_weight", "eval/nll", "eval/thought_entropy"} <= {*scalars}
    assert "thoughts/text_summary" in board.Tags()["tensors"]


def test_thoughts_are_sampled_at_every_evaluation(finished: Recipe) -> None:
    lines = (finished.run.output / "thoughts.jsonl").read_text().splitlines()
    thoughts = [json.loads(line) for line in lines]
    assert [thought["step"] for thought in thoughts] == [0] * 8 + [2] * 8 + [4] * 8
    first = thoughts[0]
    assert first["context"].split()[-1].startswith("t")
    assert len(first["thought"].split()) == finished.thinking.budget
    assert math.isfinite(first["mixing_weight"])
    assert [t["position"] for t in thoughts[:8]] == [t["position"] for t in thoughts[8:16]]


def test_a_resumed_run_is_the_same(finished: Recipe, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    train(changed(finished, killed, steps=2))
    (killed / ".writing" / "checkpoint-3").mkdir(parents=True)  # killed while it was writing
    resumed = changed(finished, killed)
    train(resumed, resume=True)
    expected, found = weights(finished, 4), weights(resumed, 4)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    logs = [
        [{k: v for k, v in entry.items() if k != "tokens_per_second"} for entry in log]
        for log in (history(resumed, 4), history(finished, 4))
    ]
    assert [entry for entry in logs[0] if "train_runtime" not in entry] == logs[1]
    assert not (killed / ".writing").exists()


def test_a_resumed_run_may_change_what_it_writes(finished: Recipe, tmp_path: Path) -> None:
    """Evaluations, checkpoints, precision of the export; the numbers stay."""
    parts = tmp_path / "parts"
    train(changed(finished, parts, steps=2))
    resumed = changed(
        finished, parts, eval_every=1, keep=5, export_dtype="bfloat16", sample_thoughts=1
    )
    train(resumed, resume=True)
    names = {path.name for path in parts.glob("checkpoint-*")}
    assert names == {"checkpoint-2", "checkpoint-3", "checkpoint-4"}
    assert [e["step"] for e in history(resumed, 4) if "eval_nll" in e] == [0, 2, 3, 4]
    expected = weights(finished, 4)
    assert all(torch.equal(weights(resumed, 4)[name], expected[name]) for name in expected)
    assert load_recipe(parts / "recipe.yaml") == resumed
    assert {t.dtype for t in load_file(parts / "model/model.safetensors").values()} == {
        torch.bfloat16
    }


def test_a_resumed_run_has_the_schedule_that_it_began_with(
    finished: Recipe, tmp_path: Path
) -> None:
    """Or is refused: rates that have fallen to 0 do not rise again."""
    open_end = replace(finished, optimisation=replace(finished.optimisation, decay_steps=None))
    run = changed(open_end, tmp_path / "run", steps=2)
    train(run)
    longer = changed(open_end, tmp_path / "run", steps=4)
    said = (
        "rate falls to 0 at step 2, so that it cannot go on to step 4; start a new run with model"
    )
    with pytest.raises(UsageError, match=said):
        train(longer, resume=True)
    shorter = changed(open_end, tmp_path / "run", steps=1)
    with pytest.raises(UsageError, match=r"another schedule: .*set optimisation\.decay_steps to 2"):
        train(shorter, resume=True)
    named = replace(run, optimisation=replace(run.optimisation, decay_steps=2))
    assert check_output(named, resume=True) is not None
    constant = replace(finished.optimisation, schedule="constant")
    steady = changed(replace(finished, optimisation=constant), tmp_path / "steady", steps=2)
    train(steady)
    train(changed(steady, tmp_path / "steady", steps=4), resume=True)
    rates = [entry["learning_rate"] for entry in history(steady, 4) if "loss" in entry]
    assert rates == pytest.approx([constant.learning_rate] * 4)


@pytest.mark.parametrize("at", [0, 4])
def test_a_killed_run_writes_no_thought_twice(
    finished: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Killed after an evaluation and before its checkpoint: the first one, or a later one. Nor does
    TensorBoard show a step twice.
    """
    run = changed(finished, tmp_path / "run")

    def killed(callback: CollapseWatch, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CollapseWatch, "on_evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            train(run)
    thoughts = run.run.output / "thoughts.jsonl"
    with thoughts.open("a") as lines:
        lines.write('{"step": 4, "posi')  # cut short
    train(run, resume=True)
    assert thoughts.read_text() == (finished.run.output / "thoughts.jsonl").read_text()
    board = EventAccumulator(str(run.run.output / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("eval/nll")] == [0, 2, 4]
    assert [event.step for event in board.Scalars("train/nll")] == [1, 2, 3, 4]


def test_a_run_that_has_ended_takes_no_step_more(finished: Recipe, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished.run.output, copy)
    same = changed(finished, copy)
    shutil.rmtree(copy / "model")
    train(same, resume=True)
    assert {path.name for path in copy.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    assert (copy / "model/config.json").exists()
    with pytest.raises(UsageError, match=r"gone to step 4 already, beyond run\.steps of 3"):
        train(changed(finished, copy, steps=3), resume=True)


def test_a_resumed_stream_is_the_same(finished: Recipe, tmp_path: Path) -> None:
    data = replace(finished.data, streaming=True, pieces="window", shuffle_buffer=8)
    streamed = replace(finished, data=data)
    whole = changed(streamed, tmp_path / "whole", steps=12)  # more than one epoch
    parts = changed(streamed, tmp_path / "parts", steps=10)
    train(whole)
    train(parts)
    train(changed(parts, parts.run.output, steps=12), resume=True)
    expected = weights(whole, 12)
    assert all(torch.equal(weights(parts, 12)[name], expected[name]) for name in expected)


def test_the_best_checkpoint_is_kept_and_exported(finished: Recipe, tmp_path: Path) -> None:
    # A head that is thrown far away: the run only gets worse after its first evaluation.
    worse = changed(finished, tmp_path / "run", steps=8, eval_every=1, keep=1)
    rates = replace(worse.optimisation, learning_rate=0.0, head_learning_rate=0.3, warmup_steps=3)
    worse = replace(worse, optimisation=rates)
    train(worse)
    state = json.loads((worse.run.output / "checkpoint-8/trainer_state.json").read_text())
    evaluations = [e for e in history(worse, 8) if "eval_nll" in e and e["step"] > 0]
    best = min(evaluations, key=lambda entry: entry["eval_nll"])["step"]
    assert best < 8
    kept = {path.name for path in worse.run.output.glob("checkpoint-*")}
    assert kept == {f"checkpoint-{best}", "checkpoint-8"}
    assert state["best_model_checkpoint"] == str(worse.run.output / f"checkpoint-{best}")
    card = (worse.run.output / "model/README.md").read_text()
    assert f"this is step {best} of 8" in card


@pytest.mark.parametrize(
    ("eval_every", "said"),
    [(4, "the gradient of step 3 is nan"), (2, "loss of step 2 is no number")],
)
def test_nan_and_infinity_stop_the_run(
    finished: Recipe, tmp_path: Path, eval_every: int, said: str
) -> None:
    broken = changed(finished, tmp_path / "run", steps=6, eval_every=eval_every)
    optimisation = replace(
        broken.optimisation, learning_rate=1e20, warmup_steps=1, warmup_from_zero=True
    )
    with pytest.raises(TrainingStopped, match=said) as caught:
        train(replace(broken, optimisation=optimisation))
    assert "\n" not in str(caught.value)
    assert not list(broken.run.output.glob("checkpoint-*"))
    # With a lower learning rate it begins anew, and nothing of the former run is left.
    steady = replace(broken, run=replace(broken.run, steps=4, eval_every=2))
    train(steady, resume=True)
    expected = weights(finished, 4)
    assert all(torch.equal(weights(steady, 4)[name], expected[name]) for name in expected)
    thoughts = (steady.run.output / "thoughts.jsonl").read_text()
    assert thoughts == (finished.run.output / "thoughts.jsonl").read_text()


def test_collapsed_thoughts_stop_the_run(finished: Recipe, tmp_path: Path) -> None:
    run = changed(finished, tmp_path / "run", steps=6, collapse_entropy=99.0, collapse_patience=2)
    with pytest.raises(TrainingStopped, match=r"2 evaluations up to step 2, now 1\.6 nats"):
        train(run)
    calm = changed(finished, tmp_path / "calm", collapse_entropy=0.0, collapse_repeated=0.0)
    with pytest.raises(TrainingStopped, match="3 evaluations up to step 4"):
        train(calm)
    assert {path.name for path in calm.run.output.glob("checkpoint-*")} == {"checkpoint-2"}


def test_a_full_disk_leaves_the_last_checkpoint(
    finished: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: dict[str, Tensor], path: Path) -> None:
        if "checkpoint-4" in str(path):
            raise OSError(28, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr("training.trainer.trainer.save_file", full)
    run = changed(finished, tmp_path / "run")
    with pytest.raises(TrainingStopped, match=r"step 4: .*No space left"):
        train(run)
    assert {path.name for path in run.run.output.iterdir()} == {
        *("checkpoint-2", "recipe.yaml", "tensorboard", "thoughts.jsonl")
    }
    monkeypatch.undo()
    train(run, resume=True)
    expected = weights(finished, 4)
    assert all(torch.equal(weights(run, 4)[name], expected[name]) for name in expected)


def test_an_interrupted_run_is_resumed(
    finished: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "recipe.yaml"
    run = changed(finished, tmp_path / "run")
    save_recipe(run, path)

    def interrupted(callback: CollapseWatch, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CollapseWatch, "on_evaluate", interrupted)
        assert main(["train", str(path)]) == 130
    assert f"stopped: the checkpoints in {tmp_path}/run are whole" in capsys.readouterr().err
    assert main(["train", str(path), "--resume"]) == 0
    expected = weights(finished, 4)
    assert all(torch.equal(weights(run, 4)[name], expected[name]) for name in expected)


def test_only_the_main_process_prints(
    finished: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["train", str(finished.run.output / "nowhere.yaml")]) == 2
    assert not any(capsys.readouterr())


def test_mistakes_in_data_are_reported_before_the_model_is_loaded(
    finished: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.trainer.run.build", None)
    run = changed(finished, tmp_path / "run")
    few = replace(finished.data, eval_documents=39, pieces="window")
    with pytest.raises(UsageError, match="has 1 piece of text for training, fewer than the 4 "):
        train(replace(run, data=few))
    with pytest.raises(UsageError, match="has no column 'story'"):
        train(replace(run, data=replace(finished.data, column="story")))
    wide = replace(finished.optimisation, window=1022)
    with pytest.raises(
        UsageError, match=r"window is 1022 and a thought takes 3 more positions, but"
    ):
        train(replace(run, optimisation=wide))


def test_a_window_and_its_thoughts_fit_into_the_models_positions(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)  # budget 2: START, two tokens, END in place of the next
    for room, fits in ((18, False), (19, True)):
        write_random_checkpoint(tmp_path / "start", "mistral", max_position_embeddings=room)
        if fits:
            load_tokenizer_of(recipe)
            continue
        with pytest.raises(UsageError, match=r"the model has 18; set optimisation\.window to 15"):
            load_tokenizer_of(recipe)
    plain = replace(recipe, thinking=replace(recipe.thinking, budget=0))
    write_random_checkpoint(tmp_path / "start", "mistral", max_position_embeddings=16)
    load_tokenizer_of(plain)
    write_random_checkpoint(tmp_path / "start", "mistral", sliding_window=15)
    with pytest.raises(UsageError, match="exceed the base model's sliding window of 15"):
        load_tokenizer_of(recipe)


def test_too_small_a_disk_is_reported_before_the_first_step(
    finished: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UsageError, match=r"would take .* GB are free"):
        train(changed(finished, tmp_path / "run"))


def test_outputs_that_cannot_be_used(finished: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not empty; add --resume"):
        train(finished)
    file = tmp_path / "file"
    file.touch()
    for output in (file, Path("/proc/here")):
        with pytest.raises(UsageError, match="cannot write to"):
            train(changed(finished, output))
    with pytest.raises(UsageError, match=r"cannot read .*recipe\.yaml"):
        train(changed(finished, tmp_path / "empty"), resume=True)
    other = replace(finished, thinking=replace(finished.thinking, budget=5))
    with pytest.raises(UsageError, match=r"another recipe: thinking\.budget differs"):
        train(other, resume=True)


def test_sequences_that_cannot_be_divided_among_processes(finished: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is 4, which is no multiple of 3 sequences on each of 1"):
        train(changed(finished, tmp_path / "run", sequences_per_device=3))


def test_low_precision_trains_float32_weights(finished: Recipe, tmp_path: Path) -> None:
    low = changed(finished, tmp_path / "run", steps=2, bf16=True)
    train(low)
    assert {tensor.dtype for tensor in weights(low, 2).values()} == {torch.float32}
    losses = [history(recipe, 2)[0]["eval_base_nll"] for recipe in (low, finished)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_checkpointing_layers_changes_nothing(finished: Recipe, tmp_path: Path) -> None:
    small = changed(finished, tmp_path / "run", steps=2, recompute="layer")
    train(small)
    expected = weights(finished, 2)
    for name, found in weights(small, 2).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_a_run_that_stops_is_no_mistake_of_the_call(
    finished: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    run = changed(finished, tmp_path / "run", collapse_entropy=99.0, collapse_patience=1)
    save_recipe(run, path)
    assert main(["train", str(path)]) == 1
    assert "error: the thoughts have collapsed" in capsys.readouterr().err


def test_the_command_line(
    finished: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    save_recipe(changed(finished, tmp_path / "run"), path)
    assert main(["train", str(path), "--set", "run.stps=1"]) == 2
    assert "did you mean steps?" in capsys.readouterr().err
    assert main(["train", str(path), "--set", "run.steps=2"]) == 0
    assert main(["train", str(path), "--resume"]) == 0
    shutil.rmtree(tmp_path / "run/model")
    assert main(["export", str(tmp_path / "run")]) == 0
    assert f"written to {tmp_path}/run/model" in capsys.readouterr().out
    assert main(["export", str(tmp_path / "run"), "--dtype", "bfloat16"]) == 0
    exported = load_file(tmp_path / "run/model/model.safetensors")
    assert {tensor.dtype for tensor in exported.values()} == {torch.bfloat16}
    assert main(["export", str(tmp_path)]) == 2
