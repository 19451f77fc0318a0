"""Durations in two figures at most, as apimachinery's HumanDuration writes them: 90s, 5m12s, 3h20m, 47h, 6d3h, 400d."""

from __future__ import annotations

from datetime import datetime, timedelta

from kubesvc.api.meta import JSON, parse_time

UNKNOWN = "<unknown>"


def human(duration: timedelta) -> str:
    seconds = int(duration.total_seconds())  # towards zero, as Go converts
    if seconds < -1:
        return "<invalid>"
    if seconds < 0:
        return "0s"
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours = seconds // 60, seconds // 3600
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 24 * 8:
        return _two(days, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{days}d"
    if hours < 24 * 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def since(text: str | None, now: datetime) -> str:
    """How long ago an RFC 3339 time was."""
    if not text:
        return UNKNOWN
    try:
        return human(now - parse_time(text))
    except ValueError:
        return UNKNOWN


def age(tree: JSON, now: datetime) -> str:
    return since(tree["metadata"].get("creationTimestamp"), now)
