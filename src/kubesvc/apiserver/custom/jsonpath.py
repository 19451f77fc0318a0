"""The JSON paths of printer columns: .spec.replicas, .status.conditions[?(@.type=="Ready")].status, .items[*].name.

A small reader of k8s.io/client-go/util/jsonpath's language: fields, indices, wildcards and filters with one comparison.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

_STEP = re.compile(
    r"""\.?\[\?\(\s*@(?P<at>[.\w\-\\]*)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*(?P<value>"[^"]*"|'[^']*'|[^)\s]+))?\s*\)\]
      | \.?\[(?P<quoted>'[^']*'|"[^"]*")\]
      | \.?\[(?P<index>-?\d+)\]
      | \.?\[(?P<all>\*)\]
      | \.(?P<star>\*)
      | \.(?P<field>(?:\\.|[^.\[\\])+)""",
    re.VERBOSE,
)


class Step(NamedTuple):
    kind: str  # field, index, all, filter
    field: str = ""
    at: int = 0
    operator: str = ""
    value: Any = None


@lru_cache(maxsize=1024)
def parse(path: str) -> tuple[Step, ...]:
    """Raises ValueError for what isn't read here."""
    text = path.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    steps, at = [], 0
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None:
            raise ValueError(f"{path!r}: can't be read from {text[at:]!r} on")
        steps.append(_step(found))
        at = found.end()
    return tuple(steps)


def _step(found: re.Match[str]) -> Step:
    if found["field"] is not None:
        return Step("field", found["field"].replace("\\", ""))
    if found["quoted"] is not None:
        return Step("field", found["quoted"][1:-1].replace("\\", ""))
    if found["index"] is not None:
        return Step("index", at=int(found["index"]))
    if found["all"] or found["star"]:
        return Step("all")
    return Step("filter", found["at"].lstrip("."), 0, found["op"] or "exists", _literal(found["value"] or ""))


def _literal(text: str) -> Any:
    if text[:1] in ("'", '"'):
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text


def problem(path: str) -> str:
    """Why `path` can't be read; "" when it can."""
    try:
        parse(path)
    except ValueError as error:
        return str(error)
    return ""


def values(path: str, tree: Any) -> list[Any]:
    """What `path` leads to. Raises ValueError for a path that can't be read."""
    found = [tree]
    for step in parse(path):
        found = [value for one in found for value in _take(step, one)]
    return found


def _take(step: Step, value: Any) -> list[Any]:
    match step.kind:
        case "field":
            return [value[step.field]] if isinstance(value, dict) and step.field in value else []
        case "index":
            good = isinstance(value, list) and -len(value) <= step.at < len(value)
            return [value[step.at]] if good else []
        case "all":
            return list(value) if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    return [item for item in value if _holds(step, item)] if isinstance(value, list) else []


def _holds(step: Step, item: Any) -> bool:
    for name in filter(None, step.field.split(".")):
        if not isinstance(item, dict) or name not in item:
            return False
        item = item[name]
    try:
        match step.operator:
            case "exists":
                return True
            case "==":
                return bool(item == step.value)
            case "!=":
                return bool(item != step.value)
            case "<":
                return bool(item < step.value)
            case "<=":
                return bool(item <= step.value)
            case ">":
                return bool(item > step.value)
        return bool(item >= step.value)
    except TypeError:
        return False
