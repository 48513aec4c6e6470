"""/metrics of a server, as numbers."""

from collections.abc import Mapping
from typing import NamedTuple

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]


class Scrape(NamedTuple):
    """All samples by name and labels, and all families by name."""

    samples: Mapping[str, Mapping[Labels, float]]
    families: Mapping[str, Metric]

    def value(self, name: str, **labels: str) -> float:
        """The one sample of that name with these labels among its labels."""
        wanted = labels.items()
        (value,) = [v for key, v in self.samples[name].items() if wanted <= set(key)]
        return value


def scrape(url: str, timeout: float = 30) -> Scrape:
    """The metrics of the server at `url` now."""
    answer = httpx.get(f"{url}/metrics", timeout=timeout).raise_for_status()
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    samples: dict[str, dict[Labels, float]] = {}
    for family in families.values():
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return Scrape(samples, families)
