"""Every panel of the dashboard as Grafana would draw it: from its queries, asked of a real
Prometheus that scrapes a real server under load."""

import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.monitoring.test_monitoring import (
    DASHBOARD,
    MONITORING,
    alert_queries,
    load,
    panels,
    send,
)
from tests.support.servers import RunningServer, free_port

PROMETHEUS = shutil.which("prometheus")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        PROMETHEUS is None, reason="no Prometheus on the PATH (Debian has one: prometheus)"
    ),
]

SCRAPE_SECONDS = 1
RATE_INTERVAL = f"{4 * SCRAPE_SECONDS}s"
"""The least that Grafana puts in place of `$__rate_interval`."""
CLIENTS = 14
"""More than the server's batch has room for, so that some wait."""
SECONDS = 240.0
"""For all panels; a busy machine takes long."""


@dataclass
class Panel:
    """A panel and what has been drawn of it: by the number of the query, its lines by legend."""

    title: str
    kind: str
    targets: list[dict[str, Any]]
    lines: dict[int, dict[str, list[float]]] = field(default_factory=dict)

    @property
    def is_drawn(self) -> bool:
        """A heatmap needs buckets, any other panel a line for each query."""
        fewest = 2 if self.kind == "heatmap" else 1
        return all(len(self.lines.get(number, {})) >= fewest for number in range(len(self.targets)))


@dataclass(frozen=True)
class Prometheus:
    """A running one."""

    url: str

    def ask(self, path: str, **parameters: Any) -> Any:
        """The data of an answer of its API."""
        response = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30)
        content = response.json()
        assert content["status"] == "success", content
        return content["data"]

    def lines(self, target: dict[str, Any], model: str, start: float) -> dict[str, list[float]]:
        """A query's lines since `start`, by legend: those with a finite value."""
        query = target["expr"].replace("$__rate_interval", RATE_INTERVAL).replace("$model", model)
        found = self.ask(
            "query_range", query=query, start=start, end=time.time(), step=SCRAPE_SECONDS
        )
        lines = {}
        for series in found["result"]:
            values = [float(value) for _, value in series["values"]]
            if finite := [value for value in values if math.isfinite(value)]:
                lines[legend(target["legendFormat"], series["metric"])] = finite
        return lines


def legend(form: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), form)


@contextmanager
def running_prometheus(server: RunningServer, folder: Path) -> Iterator[Prometheus]:
    """With the project's own settings, but for the target and a scrape every second."""
    settings = load("prometheus/prometheus.yaml")
    settings["global"]["scrape_interval"] = f"{SCRAPE_SECONDS}s"
    settings["rule_files"] = [
        str(MONITORING / "prometheus" / name) for name in settings["rule_files"]
    ]
    settings["scrape_configs"][0]["static_configs"] = [
        {"targets": [server.url.removeprefix("http://")]}
    ]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
    assert PROMETHEUS is not None
    address = f"127.0.0.1:{free_port()}"
    options = {
        "config.file": folder / "prometheus.yaml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": address,
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [PROMETHEUS, *(f"--{name}={value}" for name, value in options.items())],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://{address}"
        deadline = time.monotonic() + 60
        while not is_ready(url):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(30)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready").status_code == 200
    except httpx.HTTPError:
        return False


def model_variable(prometheus: Prometheus) -> str:
    """The value of `$model`, asked for as Grafana does."""
    variables = {v["name"]: v for v in json.loads(DASHBOARD.read_text())["templating"]["list"]}
    asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variables["model"]["query"]["query"])
    assert asked is not None
    values = prometheus.ask(f"label/{asked[2]}/values", **{"match[]": asked[1]})
    return "|".join(values)


def drawn(prometheus: Prometheus, url: str) -> tuple[str, list[Panel]]:
    """The model and all panels, after as much load as they need."""
    found = [Panel(panel["title"], panel["type"], panel["targets"]) for panel in panels()]
    start, deadline = time.time(), time.monotonic() + SECONDS
    model = ""
    with ThreadPoolExecutor(max_workers=CLIENTS) as clients:
        while empty := [panel for panel in found if not panel.is_drawn]:
            left = [panel.title for panel in empty]
            assert time.monotonic() < deadline, f"nothing is drawn in {left}"
            for one in [clients.submit(send, url, number) for number in range(CLIENTS)]:
                one.result()
            if model := model_variable(prometheus):
                for panel in empty:
                    for number, target in enumerate(panel.targets):
                        panel.lines[number] = prometheus.lines(target, model, start)
    return model, found


def test_every_panel_is_drawn_from_a_real_prometheus(
    small_server: RunningServer, tmp_path: Path
) -> None:
    with running_prometheus(small_server, tmp_path) as prometheus:
        model, found = drawn(prometheus, small_server.url)
        rules = prometheus.ask("rules")["groups"][0]["rules"]
        for query in alert_queries():
            assert prometheus.ask("query", query=query)["result"] == []  # nothing is wrong
    assert model
    assert len(rules) == len(alert_queries())
    assert not any(rule.get("lastError") for rule in rules)
    for panel in found:
        for lines in panel.lines.values():
            for name, values in lines.items():
                print(f"{panel.title}: {name}: {min(values):.4g} to {max(values):.4g}")
                assert name == name.strip(" ,:")  # no label is missing in it
    by_title = {panel.title: panel for panel in found}
    # What can be known beforehand: these are shares, and a pass has a row for each request.
    for title in ("Share of thinking in the work", "Share of tokens thought about", "KV cache"):
        (lines,) = by_title[title].lines.values()
        assert all(0 <= value <= 1 for values in lines.values() for value in values), title
    (rows,) = by_title["Rows per pass"].lines[0].values()
    assert 0 < max(rows) <= CLIENTS
    budgets = set(by_title["Time per visible token"].lines[0])
    assert budgets >= {"p50, budget 0", "p50, budget 5-8"}
