"""The files in monitoring/: they parse, fit together, and ask for metrics that a real server has.

No Docker here. The queries are parsed as Prometheus does; every metric in them must be in the
server's /metrics, and must move when the server works.
"""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import promql_parser as promql
import pytest
import yaml

from tests.support.scrapes import Labels, Scrape, scrape
from tests.support.servers import ROOT, RunningServer

pytestmark = pytest.mark.slow

MONITORING = ROOT / "monitoring"
DASHBOARD = MONITORING / "grafana/dashboards/quietstar.json"
# Prometheus makes this one.
OF_PROMETHEUS = {"up"}
VARIABLES = {"$__rate_interval": "1m", "$model": ".*"}


def load(path: str) -> Any:
    return yaml.safe_load((MONITORING / path).read_text())


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def panel_queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def alert_queries() -> list[str]:
    return [
        rule["expr"]
        for group in load("prometheus/alerts.yaml")["groups"]
        for rule in group["rules"]
    ]


def with_values(query: str) -> str:
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    return query


def selectors(node: promql.Expr) -> Iterator[promql.VectorSelector]:
    """The vector selectors of an expression."""
    match node:
        case promql.VectorSelector():
            yield node
        case promql.MatrixSelector():
            yield node.vector_selector
        case promql.AggregateExpr() | promql.ParenExpr() | promql.UnaryExpr():
            yield from selectors(node.expr)
        case promql.BinaryExpr():
            yield from selectors(node.lhs)
            yield from selectors(node.rhs)
        case promql.Call():
            for argument in node.args:
                yield from selectors(argument)
        case promql.NumberLiteral() | promql.StringLiteral():
            return
        case _:
            raise AssertionError(f"not handled: {node}")


def selected(query: str) -> set[str]:
    return {selector.name or "" for selector in selectors(promql.parse(with_values(query)))}


def labels_asked_for(query: str) -> set[str]:
    """The labels in matchers and groupings."""
    matched = {
        matcher.name
        for selector in selectors(promql.parse(with_values(query)))
        for matcher in selector.matchers.matchers
    }
    grouped = re.findall(r"\bby \(([^)]*)\)", query)
    return matched | {name.strip() for names in grouped for name in names.split(",")}


def test_prometheus_finds_its_rules_and_the_server() -> None:
    config = load("prometheus/prometheus.yaml")
    for name in config["rule_files"]:
        assert (MONITORING / "prometheus" / name).is_file()
    ((target,),) = [job["targets"] for job in config["scrape_configs"][0]["static_configs"]]
    host, _, port = target.partition(":")
    for name in ("server-cpu", "server-gpu"):
        service = load("compose.yaml")["services"][name]
        assert host in service["networks"]["default"]["aliases"]
        assert service["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    """As Prometheus's own tool evaluates them on made-up series."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool found (on Debian: apt install prometheus)")
    file = Path(__file__).with_name("alerts.yaml")
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_of_alerts_name_all_of_them() -> None:
    rules = {
        rule["alert"]
        for group in load("prometheus/alerts.yaml")["groups"]
        for rule in group["rules"]
    }
    *silent, (_, firing) = (
        ({t["alertname"] for t in test.get("alert_rule_test", ())}, str(test))
        for test in yaml.safe_load(Path(__file__).with_name("alerts.yaml").read_text())["tests"]
    )
    assert [names for names, _ in silent] == [rules] * 2
    assert {name for name in rules if f'alertname="{name}"' in firing} == rules


def test_a_plain_up_starts_one_server_prometheus_and_grafana() -> None:
    (line,) = (MONITORING / ".env").read_text().splitlines()
    name, _, profile = line.partition("=")
    assert name == "COMPOSE_PROFILES"
    started = {
        name
        for name, service in load("compose.yaml")["services"].items()
        if profile in service.get("profiles", [profile])
    }
    assert started == {"server-cpu", "prometheus", "grafana"}


def test_what_compose_names_exists() -> None:
    compose = load("compose.yaml")
    stages = re.findall(r"^FROM \S+ AS (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for service in compose["services"].values():
        if "build" in service:
            assert (MONITORING / service["build"]["context"]).resolve() == ROOT
            assert service["build"]["target"] in stages
        else:
            assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", service["image"])
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (MONITORING / source).is_dir()
            else:
                assert source in compose["volumes"]
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:")


def test_containers_can_do_and_write_only_what_they_need() -> None:
    for name, service in load("compose.yaml")["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "user", "pid"} & service.keys(), name
        assert service["restart"] == "unless-stopped"
        assert service["tmpfs"][0].startswith("/tmp")
        # All else that is mounted to be written to is a volume with a name.
        for volume in service["volumes"]:
            assert volume.endswith(":ro") or not volume.startswith((".", "/")), volume


def test_the_servers_caches_and_scratch_files_have_a_place() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    (home,) = re.findall(r"^ENV HF_HOME=(\S+)/\.cache/huggingface", dockerfile, re.MULTILINE)
    (user,) = set(re.findall(r"^USER (\d+)$", dockerfile, re.MULTILINE))
    for name in ("server-cpu", "server-gpu"):
        service = load("compose.yaml")["services"][name]
        places = dict(place.split(":") for place in service["tmpfs"])
        assert places.keys() == {"/tmp", home}
        assert f"uid={user}" in places[home].split(",")
        # Docker mounts them noexec otherwise, and compiled kernels could not be loaded.
        assert all("exec" in options.split(",") for options in places.values())
        assert service["volumes"] == [f"cache:{home}/.cache"]


def test_grafana_has_no_user_with_a_known_password() -> None:
    settings = load("compose.yaml")["services"]["grafana"]["environment"]
    assert settings["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert settings["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert settings["GF_AUTH_BASIC_ENABLED"] == "false"
    assert settings["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert not [name for name in settings if "PASSWORD" in name]


def test_grafana_is_provisioned_with_the_dashboard() -> None:
    grafana = load("compose.yaml")["services"]["grafana"]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    (provider,) = load("grafana/provisioning/dashboards/quietstar.yaml")["providers"]
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home == Path(provider["options"]["path"], DASHBOARD.name)
    (source,) = load("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    variables = {v["name"]: v for v in json.loads(DASHBOARD.read_text())["templating"]["list"]}
    assert variables["datasource"]["current"]["value"] == source["uid"]
    assert source["type"] == variables["datasource"]["query"]
    interval = load("prometheus/prometheus.yaml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval


def test_panels_have_numbers_titles_and_places_of_their_own() -> None:
    everything = json.loads(DASHBOARD.read_text())["panels"]
    for values in ([p["id"] for p in everything], [p["title"] for p in everything]):
        assert len(set(values)) == len(values)
    cells = [
        (x, y)
        for panel in everything
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
    assert all(panel["description"] for panel in panels())


def test_legends_show_labels_that_the_query_keeps() -> None:
    for panel in panels():
        for target in panel["targets"]:
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert shown <= labels_asked_for(target["expr"])


@pytest.mark.parametrize("query", [*panel_queries(), *alert_queries()])
def test_a_query_uses_metrics_of_the_server(small_server: RunningServer, query: str) -> None:
    # HTTP requests are counted from the first one on.
    httpx.get(f"{small_server.url}/v1/models")
    now = scrape(small_server.url)
    for name in selected(query) - OF_PROMETHEUS:
        samples = now.samples.get(name)
        assert samples, f"{name} is not in /metrics"
        for selector in selectors(promql.parse(with_values(query))):
            if selector.name == name:
                labels = {matcher.name for matcher in selector.matchers.matchers}
                assert any(labels <= {label for label, _ in key} for key in samples), labels


def test_everything_on_the_dashboard_moves_under_load(small_server: RunningServer) -> None:
    names = {name for query in panel_queries() for name in selected(query)}
    before = scrape(small_server.url)
    moved: set[str] = set()
    deadline = time.monotonic() + 120
    # More than the server's batch has room for, so that some wait.
    with ThreadPoolExecutor(max_workers=14) as clients:
        while moved < names:
            assert time.monotonic() < deadline, f"these never moved: {names - moved}"
            load_ = [clients.submit(send, small_server.url, number) for number in range(14)]
            while not all(one.done() for one in load_):
                now = scrape(small_server.url)
                moved |= {name for name in names if changed(before, now, name)}
            for one in load_:
                one.result()


def send(url: str, number: int) -> None:
    """One request of a mixed load: of all budgets, with and without thresholds and thoughts, one
    refused, one abandoned."""
    body = {
        "prompt": [1, *range(3, 36)],
        "max_tokens": 40,
        "ignore_eos": True,
        "thought_budget": (0, 2, 4, 8, 16)[number % 5],
        "thought_threshold": (0, 2.0)[number % 4 > 1],
        "return_thoughts": number % 2 == 0,
    }
    url = f"{url}/v1/completions"
    if number == 0:
        assert httpx.post(url, json=body | {"thought_budget": 99}).status_code == 400
    elif number == 1:
        with httpx.stream("POST", url, json=body | {"stream": True}, timeout=120) as response:
            next(response.iter_lines())
    else:
        httpx.post(url, json=body, timeout=120).raise_for_status()


def changed(before: Scrape, now: Scrape, name: str) -> bool:
    nothing: dict[Labels, float] = {}
    return before.samples.get(name, nothing) != now.samples.get(name, nothing)


def test_the_documentation_names_exactly_our_metrics(small_server: RunningServer) -> None:
    families = scrape(small_server.url).families.values()
    ours = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in families
        if family.name.startswith("quietstar:") and not family.name.endswith("_created")
    }
    text = (ROOT / "docs/metrics.md").read_text()
    headed = set(re.findall(r"^\| `(quietstar:\w+)", text, re.MULTILINE))
    assert headed == ours
    # Elsewhere on the page a histogram's series may be named, too.
    parts = {f"{name}_{part}" for name in ours for part in ("bucket", "sum", "count")}
    assert set(re.findall(r"quietstar:\w+", text)) <= ours | parts


def test_every_metric_of_ours_is_documented(small_server: RunningServer) -> None:
    for family in scrape(small_server.url).families.values():
        if family.name.startswith("quietstar:"):
            assert len(family.documentation) > 40


def test_the_queries_in_the_documentation_use_metrics_of_the_server(
    small_server: RunningServer,
) -> None:
    now = scrape(small_server.url)
    text = (ROOT / "docs/metrics.md").read_text()
    queries = [
        query.replace(r"\|", "|")
        for query in re.findall(r"^\| `.*\| `(.+)` \|$", text, re.MULTILINE)
    ]
    (block,) = re.findall(r"```promql\n(.*?)```", text, re.DOTALL)
    queries += [line for line in block.splitlines() if line and not line.startswith("#")]
    assert len(queries) > 10
    for query in queries:
        assert selected(query) <= now.samples.keys(), query
