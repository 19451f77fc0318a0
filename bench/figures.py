"""How a figure is printed: `name value unit`, a median over runs where there are several."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def show(name: str, value: float, unit: str) -> None:
    print(f"{name} {value:.5g} {unit}", flush=True)


def show_median(name: str, values: Sequence[float], unit: str) -> None:
    show(name, statistics.median(values), unit)


def show_percentiles(name: str, values: Sequence[float], unit: str) -> None:
    """p50 and p99; with fewer than 100 samples p99 is the largest."""
    ordered = sorted(values)
    show(f"{name}_p50", statistics.median(ordered), unit)
    show(f"{name}_p99", ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], unit)
