"""The manifests in monitoring/kubernetes: valid by Kubernetes's own schemas, and they fit together
and the server.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.cli import make_parser
from tests.support.servers import ROOT

FOLDER = ROOT / "monitoring" / "kubernetes"
# What the engine takes to end after the last request, at most, and what a busy machine adds.
SECONDS_TO_END = 30
# Kinds that others define, whose schemas are not Kubernetes's.
FOREIGN = {"Kustomization", "ServiceMonitor", "InferenceService", "InferencePool", "HTTPRoute"}
NAME = {"app.kubernetes.io/name": "quietstar"}


def documents(folder: Path = FOLDER) -> list[dict[str, Any]]:
    return [
        document
        for file in sorted(folder.rglob("*.yaml"))
        for document in yaml.safe_load_all(file.read_text())
    ]


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [document for document in documents() if document["kind"] == kind]
    return found


def pod() -> dict[str, Any]:
    specification: dict[str, Any] = of_kind("Deployment")["spec"]["template"]["spec"]
    return specification


@pytest.mark.parametrize(
    "document",
    [document for document in documents() if document["kind"] not in FOREIGN],
    ids=lambda document: document["kind"],
)
def test_each_is_valid(document: dict[str, Any]) -> None:
    try:
        kubernetes_validate = import_module("kubernetes_validate")
    except ImportError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("no kubernetes-validate here: install requirements/dev.txt")
    kubernetes_validate.validate(document, "1.37", strict=True)


def test_the_foreign_ones_are_what_they_should_be() -> None:
    kinds = {document["kind"] for document in documents()}
    assert kinds >= FOREIGN
    assert all(document["apiVersion"] and document["kind"] for document in documents())


def test_all_files_are_in_the_kustomization() -> None:
    listed = of_kind("Kustomization")["resources"]
    files = {file.name for file in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(listed) == files


def test_everything_selects_the_servers_pods() -> None:
    deployment = of_kind("Deployment")["spec"]
    assert deployment["template"]["metadata"]["labels"] == NAME
    assert deployment["selector"]["matchLabels"] == NAME
    assert of_kind("Service")["spec"]["selector"] == NAME
    for kind in ("PodDisruptionBudget", "ServiceMonitor", "InferencePool"):
        assert of_kind(kind)["spec"]["selector"]["matchLabels"] == NAME
    target = of_kind("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (
        "Deployment",
        of_kind("Deployment")["metadata"]["name"],
    )


def test_ports_are_found_by_their_names() -> None:
    (container,) = pod()["containers"]
    (port,) = container["ports"]
    (of_service,) = of_kind("Service")["spec"]["ports"]
    assert of_service["targetPort"] == port["name"]
    (endpoint,) = of_kind("ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] == of_service["name"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": port["name"]}


def test_a_server_is_given_the_time_that_it_takes_to_stop() -> None:
    (container,) = pod()["containers"]
    args = make_parser().parse_args(container["args"])
    waits = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    # Whoever sends requests must notice a pod that ends: Kubernetes's proxies do within seconds.
    assert waits >= 10
    needed = waits + args.shutdown_timeout + SECONDS_TO_END
    assert pod()["terminationGracePeriodSeconds"] >= needed
    example = of_kind("InferenceService")["spec"]["predictor"]
    assert example["terminationGracePeriodSeconds"] >= needed


def test_it_scales_by_the_work_that_waits() -> None:
    (metric,) = of_kind("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == "quietstar_queued_passes"
    rule = (ROOT / "docs" / "scale.md").read_text()
    assert "quietstar:queued_passes" in rule
    assert "quietstar_queued_passes" in rule
