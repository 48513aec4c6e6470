"""The server's own counters, where it has some."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loadtest.client.probe import ServerFacts
from loadtest.client.requests import headers
from loadtest.traffic.plan import Target

_FAMILIES = ("vllm:", "quietstar:")
# Of a histogram its sum and its count are enough: distributions are measured at the client.
_NOT_KEPT = ("_bucket", "_created")
_SECONDS = 10.0


def read_counters(target: Target, facts: ServerFacts) -> dict[str, float]:
    """Counters and the sums and counts of histograms, by name and labels; empty where the server
    shows none."""
    try:
        response = httpx.get(f"{facts.url}/metrics", headers=headers(target), timeout=_SECONDS)
        families = list(text_string_to_metric_families(response.raise_for_status().text))
    except (httpx.HTTPError, ValueError):
        return {}
    return {
        _key(sample.name, sample.labels): float(sample.value)
        for family in families
        if family.type in ("counter", "histogram", "summary", "unknown")
        and family.name.startswith(_FAMILIES)
        for sample in family.samples
        if not sample.name.endswith(_NOT_KEPT)
    }


def changes(before: dict[str, float], after: dict[str, float]) -> dict[str, tuple[float, float]]:
    """Before and after, side by side; what is new began at 0."""
    return {name: (before.get(name, 0.0), value) for name, value in after.items()}


def _key(name: str, labels: dict[str, str]) -> str:
    text = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{text}}}" if text else name
