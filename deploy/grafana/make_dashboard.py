#!/usr/bin/env python3
"""Prints deploy/grafana/dashboards/moed.json: rows of panels in a few lines each, where Grafana wants hundreds."""

import json
import os
import sys

BY_MODEL = '{job=~"$job", model=~"$model"}'
BY_LAYER = '{job=~"$job", model=~"$model", layer=~"$layer"}'
BY_WINDOW = '{job=~"$job", model=~"$model", layer=~"$layer", window="$window"}'

# (title, unit, description, [(expression, legend)]); ROW begins a row.
ROW = "row"
PANELS = [
    (ROW, "Routing"),
    ("Share of selections", "percentunit", "Of each expert, over all replicas.",
     [(f"sum by (model, layer, expert) (rate(moed_expert_selected_total{BY_LAYER}[5m])) / on (model, layer) group_left "
       f"sum by (model, layer) (rate(moed_expert_selected_total{BY_LAYER}[5m]))", "{{layer}} {{expert}}")]),
    ("Share of combine weight", "percentunit", "What to look at where a gate uses every expert.",
     [(f"sum by (model, layer, expert) (rate(moed_expert_weight_part_total{BY_LAYER}[5m])) / on (model, layer) group_left "
       f"sum by (model, layer) (rate(moed_expert_weight_part_total{BY_LAYER}[5m]))", "{{layer}} {{expert}}")]),
    ("Drift from the reference", "short", "Population stability index; by custom 0.1 is small and 0.25 large. Believe it "
     "where the p-value is small.",
     [(f"moed_layer_drift_psi{BY_WINDOW}", "PSI {{layer}} {{instance}}"),
      (f"moed_layer_drift_p_value{BY_WINDOW}", "p {{layer}} {{instance}}")]),
    ("Gate entropy", "bits", "Of one item, on average: 0 when the gate is sure.",
     [(f"sum by (model, layer) (rate(moed_layer_gate_entropy_bits_total{BY_LAYER}[5m])) / "
       f"sum by (model, layer) (rate(moed_layer_rows_total{BY_LAYER}[5m]))", "{{model}} {{layer}}")]),
    ("Margin", "short", "Largest probability less the second, on average.",
     [(f"sum by (model, layer) (rate(moed_layer_margin_total{BY_LAYER}[5m])) / "
       f"sum by (model, layer) (rate(moed_layer_rows_total{BY_LAYER}[5m]))", "{{model}} {{layer}}")]),
    ("Imbalance", "short", "Largest share over the mean share, of selections and of weight.",
     [(f"moed_layer_imbalance_ratio{BY_WINDOW}", "selections {{layer}} {{instance}}"),
      (f"moed_layer_weight_imbalance_ratio{BY_WINDOW}", "weight {{layer}} {{instance}}")]),
    ("Unused and dying experts", "short", "Not selected in the window; used in the hour and, beyond chance, not lately.",
     [(f"moed_layer_unused_experts{BY_WINDOW}", "unused {{layer}} {{instance}}"),
      (f'moed_layer_dying_experts{BY_LAYER}', "dying {{layer}} {{instance}}")]),
    ("Dropped selections", "ops", "Because an expert's capacity was taken.",
     [(f"sum by (model, layer) (rate(moed_dropped_total{BY_LAYER}[5m]))", "{{model}} {{layer}}")]),
    ("Accuracy", "percentunit", "Of each expert, on the rows whose true class is known.",
     [(f"sum by (model, layer, expert) (rate(moed_expert_correct_total{BY_LAYER}[1h])) / "
       f"(sum by (model, layer, expert) (rate(moed_expert_labelled_total{BY_LAYER}[1h])) > 0)", "{{layer}} {{expert}}")]),
    (ROW, "Serving"),
    ("Requests", "reqps", "", [(f"sum by (model, code) (rate(moed_requests_total{BY_MODEL}[1m]))", "{{model}} {{code}}")]),
    ("Rows", "ops", "", [(f"sum by (model) (rate(moed_rows_total{BY_MODEL}[1m]))", "{{model}}")]),
    ("Latency", "s", "First byte of the request to the end of the answer.",
     [(f"histogram_quantile({q}, sum by (le, model) (rate(moed_request_seconds_bucket{BY_MODEL}[5m])))",
       f"{{{{model}}}} p{q * 100:g}") for q in (0.5, 0.99)]),
    ("Time in the queue, p99", "s", "",
     [(f"histogram_quantile(0.99, sum by (le, model) (rate(moed_queue_seconds_bucket{BY_MODEL}[5m])))", "{{model}}")]),
    ("Turned away", "reqps", "Refused or expired without being computed.",
     [(f"sum by (model, reason) (rate(moed_rejected_total{BY_MODEL}[1m]))", "{{model}} {{reason}}")]),
    ("Rows without a finite answer", "short", "A NaN or an infinity is in it: null in JSON.",
     [(f"sum by (model) (increase(moed_nonfinite_rows_total{BY_MODEL}[5m]))", "{{model}}")]),
    ("Rows per batch", "short", "",
     [(f"sum by (model) (rate(moed_batch_rows_sum{BY_MODEL}[5m])) / "
       f"sum by (model) (rate(moed_batch_rows_count{BY_MODEL}[5m]))", "{{model}}")]),
    ("Rows waiting", "short", "", [(f"sum by (model) (moed_queue_rows{BY_MODEL})", "{{model}}")]),
    ("CPU", "short", "CPUs in use.", [('rate(process_cpu_seconds_total{job=~"$job"}[1m])', "{{instance}}")]),
    ("Memory", "bytes", "", [('process_resident_memory_bytes{job=~"$job"}', "{{instance}}")]),
    ("Connections", "short", "", [('moed_connections{job=~"$job"}', "{{instance}}")]),
]
WIDTH, HEIGHT, COLUMNS = 8, 8, 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(entry, number, x, y):
    title, unit, description, targets = entry
    return {"id": number, "type": "timeseries", "title": title, "description": description, "datasource": DATASOURCE,
            "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}},
                            "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
            "targets": [{"refId": chr(ord("A") + i), "expr": expression, "legendFormat": legend, "datasource": DATASOURCE}
                        for i, (expression, legend) in enumerate(targets)]}


def panels():
    x = y = 0
    for number, entry in enumerate(PANELS, 1):
        if entry[0] == ROW:
            y += HEIGHT if x else 0
            yield {"id": number, "type": "row", "title": entry[1], "collapsed": False, "panels": [],
                   "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}}
            x, y = 0, y + 1
            continue
        yield panel(entry, number, x, y)
        x += WIDTH
        if x == COLUMNS:
            x, y = 0, y + HEIGHT


def variable(name, query, several=True):
    return {"name": name, "label": name, "type": "query", "datasource": DATASOURCE, "query": {"query": query, "refId": name},
            "refresh": 2, "includeAll": several, "multi": several, "allValue": ".*" if several else None,
            "current": {"text": "All", "value": "$__all"} if several else {}}


def dashboard():
    windows = ("1m", "5m", "1h")
    return {"uid": "moed", "title": "moed", "tags": ["moed"], "schemaVersion": 39, "editable": True, "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"}, "panels": list(panels()),
            "templating": {"list": [
                {"name": "datasource", "label": "datasource", "type": "datasource", "query": "prometheus", "current": {}},
                variable("job", "label_values(moed_build_info, job)"),
                variable("model", 'label_values(moed_rows_total{job=~"$job"}, model)'),
                variable("layer", 'label_values(moed_layer_rows_total{job=~"$job", model=~"$model"}, layer)'),
                {"name": "window", "label": "window", "type": "custom", "query": ",".join(windows),
                 "current": {"text": "5m", "value": "5m"},
                 "options": [{"text": w, "value": w, "selected": w == "5m"} for w in windows]}]}}


if __name__ == "__main__":
    try:
        print(json.dumps(dashboard(), indent=1), flush=True)
    except BrokenPipeError:  # who reads has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
