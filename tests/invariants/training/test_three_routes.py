"""The same items by three routes: in this process, through the API, and by lm-evaluation-harness
against the same server. All give the same numbers, at budget 0 and at the model's own, thinking
before every token or only where it pays.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]
import httpx
import numpy as np
import pytest

from tests.support.servers import DEMO, ROOT, RunningServer
from training.cli import main
from training.errors import UsageError
from training.evaluations.backends.base import Backend
from training.evaluations.backends.http import HttpBackend, served_by
from training.evaluations.backends.local import LocalBackend
from training.evaluations.evaluated_model import load_evaluated_gate, load_for_evaluation
from training.evaluations.outcomes import Outcome, chain_outcomes, item_outcomes
from training.evaluations.summary import corpus_likelihood
from training.evaluations.sweep import Cell
from training.evaluations.tasks.definitions import ChainTask, load_task
from training.evaluations.tasks.passages import item_maker
from training.evaluations.tasks.rows import load_rows
from training.thoughts.decode import ThoughtSettings

pytestmark = pytest.mark.slow

BUDGETS = (0, 12)
# No expected gain of the items below is near the second.
THRESHOLDS = (0.0, 0.1)
ITEMS = 4
TOLERANCE = 1e-3


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


def in_process(thoughts: ThoughtSettings) -> LocalBackend:
    loaded = load_for_evaluation(DEMO, None, "cpu", "float32")
    return LocalBackend(*loaded, thoughts, load_evaluated_gate(DEMO, loaded.thinker))


def outcomes(backend: Backend, task_name: str, **how: Any) -> list[dict[str, Outcome]]:
    """Of the first items of a task."""
    _, task = load_task(task_name)
    assert not isinstance(task, ChainTask)
    make = item_maker(task, load_for_evaluation(DEMO, None, "cpu", "float32").tokenizer, 1024)
    items = [make(row) for row in load_rows(task, ITEMS).asked]
    scores = iter(backend.score([passage for item in items for passage in item.passages], **how))
    return [item_outcomes(task.kind, item, [next(scores) for _ in item.passages]) for item in items]


def ours_at(cell: Cell, task_name: str) -> list[Outcome]:
    """Of our own evaluation with greedy thoughts, in process."""
    found = outcomes(in_process(ThoughtSettings(BUDGETS, 0.0, thresholds=THRESHOLDS)), task_name)
    return [each[cell.key] for each in found]


def assert_same(mine: Any, theirs: Any) -> None:
    """Equal JSON, numbers up to rounding."""
    if isinstance(mine, dict):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            assert_same(value, theirs[key])
    elif isinstance(mine, list):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(mine, float):
        assert mine == pytest.approx(theirs, abs=TOLERANCE)
    else:
        assert mine == theirs


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
@pytest.mark.parametrize("task", ["demo-numbers", "demo-letters", "demo-choices", "demo-text"])
def test_the_api_gives_what_the_process_computes(
    demo_server: RunningServer, task: str, temperature: float
) -> None:
    """With sampled thoughts, too: the same seed samples the same thoughts in both. Both think at
    the same tokens, and it costs the same."""
    thoughts = ThoughtSettings(BUDGETS, temperature, thresholds=THRESHOLDS)
    how = {"with_thoughts": task == "demo-text"}
    with served_by(demo_server.url, thoughts) as backend:
        assert_same(outcomes(backend, task, **how), outcomes(in_process(thoughts), task, **how))


def test_the_threshold_decides() -> None:
    """Of the tokens above: some are thought about, and some are not."""
    costs = [each["cost"] for each in ours_at(Cell(12, THRESHOLDS[1]), "demo-text")]
    assert 0 < sum(cost["thoughts"] for cost in costs) < sum(cost["tokens"] for cost in costs)


@pytest.mark.parametrize("cell", [Cell(0), Cell(2), Cell(2, 0.1)], ids=lambda cell: cell.key)
def test_chains_of_thought_are_the_same(demo_server: RunningServer, cell: Cell) -> None:
    _, task = load_task("demo-chain")
    assert isinstance(task, ChainTask)
    asked = ChainTask(
        "chain", task.data, task.prompt, " So it is", max_tokens=14, temperature=0.0, votes=1
    )
    (row,) = load_rows(task, 1).asked
    thoughts = ThoughtSettings((cell.budget,), 0.0, thresholds=(cell.threshold,))
    process = in_process(thoughts)

    def found(backend: Backend) -> dict[str, Outcome]:
        return dict(chain_outcomes(asked, row, 0, backend, process.tokenizer, (cell,), 1))

    with served_by(demo_server.url, thoughts) as backend:
        assert found(backend) == found(process)


def model_args(demo_server: RunningServer, query: str = "", **more: object) -> dict[str, object]:
    """Arguments of lm-evaluation-harness's local-completions."""
    return {
        "base_url": f"{demo_server.url}/v1/completions{query}",
        "model": "demo",
        "tokenizer": str(DEMO),
        "tokenizer_backend": "huggingface",
        "max_length": 1000,
        **more,
    }


def harness(args: dict[str, object], task: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Results and samples of lm-evaluation-harness for a task of ours."""
    from lm_eval import simple_evaluate  # type: ignore[import-untyped]
    from lm_eval.tasks import TaskManager  # type: ignore[import-untyped]

    manager = TaskManager(
        include_path=str(ROOT / "training" / "evaluations" / "harness"), include_defaults=False
    )
    found = simple_evaluate(
        model="local-completions",
        model_args=args,
        tasks=[task],
        task_manager=manager,
        limit=ITEMS,
        log_samples=True,
        bootstrap_iters=0,
    )
    return found["results"][task], found["samples"][task]


def harness_command(
    args: dict[str, object], task: str, folder: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same from its command line, which writes into a folder."""
    command = [
        *(sys.executable, "-m", "lm_eval", "--model", "local-completions"),
        *("--model_args", ",".join(f"{name}={value}" for name, value in args.items())),
        *("--include_path", "training/evaluations/harness", "--tasks", task),
        *("--limit", str(ITEMS), "--log_samples", "--output_path", str(folder)),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (results,) = folder.glob("*/results_*.json")
    (samples,) = folder.glob("*/samples_*.jsonl")
    found = json.loads(results.read_text())["results"][task]
    return found, [json.loads(line) for line in samples.read_text().splitlines()]


def queries() -> list[tuple[Cell, str]]:
    """Budget 0 and the server's default budget, before every token and where it pays, with greedy
    thoughts, in a URL's query."""
    default: int = json.loads((DEMO / "config.json").read_text())["quiet_star"][
        "default_thought_budget"
    ]
    greedy = "?thought_temperature=0"
    return [
        (Cell(0), f"{greedy}&thought_budget=0"),
        *(
            (Cell(default, threshold), f"{greedy}&thought_threshold={threshold}")
            for threshold in THRESHOLDS
        ),
    ]


@pytest.mark.parametrize(("cell", "query"), queries())
def test_the_harness_finds_the_same_perplexity(
    demo_server: RunningServer, cell: Cell, query: str
) -> None:
    found, _ = harness(model_args(demo_server, query), "quietstar_demo_text")
    items = _documents(in_process(ThoughtSettings(BUDGETS, 0.0, thresholds=THRESHOLDS)))
    for name, value in corpus_likelihood(items, cell).items():
        assert found[f"{name},none"] == pytest.approx(value, rel=TOLERANCE)


def _documents(backend: LocalBackend) -> list[dict[str, Any]]:
    _, task = load_task("demo-text")
    rows = load_rows(task, ITEMS).asked
    return [
        {
            "outcomes": each,
            "bytes": len(row["text"].encode()),
            "words": len(row["text"].split()),
        }
        for row, each in zip(rows, outcomes(backend, "demo-text"), strict=True)
    ]


@pytest.mark.parametrize(("cell", "query"), queries())
def test_the_harness_finds_the_same_likelihoods(
    demo_server: RunningServer, cell: Cell, query: str
) -> None:
    found, _ = harness(model_args(demo_server, query, add_bos_token=True), "quietstar_demo_answers")
    ours = ours_at(cell, "demo-numbers")
    perplexity = np.exp(-np.mean([outcome["logprob"] for outcome in ours]))
    assert found["perplexity,none"] == pytest.approx(perplexity, rel=TOLERANCE)
    assert found["acc,none"] == np.mean([outcome["exact"] for outcome in ours])


@pytest.mark.parametrize(("cell", "query"), queries())
def test_the_harness_makes_the_same_choices(
    demo_server: RunningServer, cell: Cell, query: str, tmp_path: Path
) -> None:
    """With a threshold on its own command line, as a user starts it."""
    args = model_args(demo_server, query, add_bos_token=True)
    task = "quietstar_demo_choices"
    if cell.is_gated:
        found, samples = harness_command(args, task, tmp_path)
    else:
        found, samples = harness(args, task)
    ours = ours_at(cell, "demo-choices")
    assert found["acc,none"] == np.mean([outcome["right"] for outcome in ours])
    for sample, outcome in zip(sorted(samples, key=_number), ours, strict=True):
        likelihoods = [float(answer[0]) for answer in sample["filtered_resps"]]
        assert likelihoods == pytest.approx(outcome["logprobs"], abs=TOLERANCE)


def _number(sample: dict[str, Any]) -> int:
    number: int = sample["doc_id"]
    return number


def evaluate(folder: Path, tasks: Sequence[str], *more: str) -> dict[str, Any]:
    """The results of our own command line."""
    command = ["evaluate", str(DEMO), "--tasks", *tasks, "--out", str(folder), "--limit", "2"]
    # All thoughts are returned.
    command += ["--heat-maps", "2"]
    assert main([*command, "--budgets", "0", "3", *more]) == 0
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_our_command_line_asks_a_server(demo_server: RunningServer, tmp_path: Path) -> None:
    tasks = ["demo-numbers", "demo-text"]
    sweep = ("--threshold", *map(str, THRESHOLDS))
    served = evaluate(tmp_path / "served", tasks, *sweep, "--url", demo_server.url)
    here = evaluate(tmp_path / "here", tasks, *sweep, "--device", "cpu")
    assert_same(served["tasks"], here["tasks"])
    assert served["route"]["id"] == "demo"
    assert served["route"]["server"]["vllm"]
    assert (tmp_path / "served" / "heat-map-demo-text-0.html").exists()


def test_a_refusal_of_the_server_is_reported(demo_server: RunningServer) -> None:
    passage = outcomes_passage()
    with (
        served_by(demo_server.url, ThoughtSettings((17,))) as backend,
        pytest.raises(UsageError, match="answered 400: thought_budget is 17"),
    ):
        backend.score([passage])
    with httpx.Client(base_url=demo_server.url) as client:
        with pytest.raises(UsageError, match="does not serve another but demo"):
            HttpBackend(client, ThoughtSettings((0,)), "another")
        many = passage._replace(allowed=tuple(range(129)))
        with pytest.raises(UsageError, match="evaluate in process, without --url"):
            HttpBackend(client, ThoughtSettings((0,))).score([many])


def outcomes_passage() -> Any:
    """One passage of the demonstration."""
    _, task = load_task("demo-numbers")
    assert not isinstance(task, ChainTask)
    tokenizer = load_for_evaluation(DEMO, None, "cpu", "float32").tokenizer
    return item_maker(task, tokenizer, 1024)(load_rows(task, 1).asked[0]).passages[0]
