"""prometheus-client's parsers: the text format and OpenMetrics."""

import importlib.metadata
import urllib.request

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client import parser
from shared import HTTP, did


def page(accept):
    request = urllib.request.Request(f"{HTTP}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


families = list(parser.text_string_to_metric_families(page("text/plain")))
open_families = list(openmetrics.text_string_to_metric_families(page("application/openmetrics-text; version=1.0.0")))
assert any(family.name == "moed_expert_selected" for family in families), [family.name for family in families]
assert len(open_families) >= len(families) - 1
did(importlib.metadata.version("prometheus-client"), f"read {len(families)} families as text and as OpenMetrics")
