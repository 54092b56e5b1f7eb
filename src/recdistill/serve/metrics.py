"""Counts and times of a server in the text form that Prometheus reads. No label ever holds what a user sent."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

Labels = tuple[tuple[str, str], ...]

#: Upper ends of the time buckets, in seconds.
BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_HELP: Final = {
    "recdistill_requests_total": ("counter", "Requests answered."),
    "recdistill_request_seconds": ("histogram", "Time of a request, from its head to the end of the answer."),
    "recdistill_histories_total": ("counter", "Histories answered, by model."),
    "recdistill_model_seconds": ("histogram", "Time of a model for one request."),
    "recdistill_unknown_items_total": ("counter", "Names in histories that are no item."),
    "recdistill_reloads_total": ("counter", "Tries to take over a new export."),
    "recdistill_in_flight": ("gauge", "Requests that are being answered."),
    "recdistill_model_items": ("gauge", "Items of a model's catalogue."),
    "recdistill_model_share": ("gauge", "Share of the traffic."),
}


class Metrics:
    """Counters, gauges and histograms by name and labels. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        self._buckets: dict[str, dict[Labels, list[int]]] = defaultdict(dict)

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter or gauge."""
        with self._lock:
            self._values[name][_labels(labels)] += amount

    def put(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._values[name][_labels(labels)] = value

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Count a time in a histogram."""
        key = _labels(labels)
        with self._lock:
            counts = self._buckets[name].setdefault(key, [0] * (len(BUCKETS) + 1))
            counts[next((n for n, end in enumerate(BUCKETS) if seconds <= end), len(BUCKETS))] += 1
            self._values[f"{name}_sum"][key] += seconds

    def text(self) -> str:
        """Return everything, in the text exposition format 0.0.4."""
        lines: list[str] = []
        with self._lock:
            for name, (kind, help_text) in _HELP.items():
                lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
                if kind == "histogram":
                    for key, counts in self._buckets[name].items():
                        lines += self._histogram(name, key, counts)
                else:
                    lines += [
                        f"{name}{_braces(key)} {value:.10g}" for key, value in self._values[name].items()
                    ]
        return "\n".join(lines) + "\n"

    def _histogram(self, name: str, key: Labels, counts: list[int]) -> list[str]:
        lines, total = [], 0
        for end, count in zip([*map(str, BUCKETS), "+Inf"], counts, strict=True):
            total += count
            lines.append(f"{name}_bucket{_braces((*key, ('le', end)))} {total}")
        lines.append(f"{name}_sum{_braces(key)} {self._values[f'{name}_sum'][key]:.9g}")
        lines.append(f"{name}_count{_braces(key)} {total}")
        return lines


def _labels(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    quoted = (f'{name}="{_escaped(value)}"' for name, value in labels)
    return "{" + ",".join(quoted) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
