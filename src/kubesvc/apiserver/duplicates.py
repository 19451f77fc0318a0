"""Fields given twice. A decoder takes the last and says nothing; `fieldValidation` wants to hear of it.

JSON names the field by its path, YAML by its line, as upstream's two decoders do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import yaml

from kubesvc.apiserver import yamlbody


class _Pairs(list[tuple[str, Any]]):
    """An object, as its names and values in the order they came."""


class _Found(Exception):
    pass


def in_json(body: bytes) -> list[str]:
    """`duplicate field "spec.replicas"` for each field given again, in the order of `body`, which is good JSON."""
    try:
        _refusing(body.decode())
    except _Found:
        found = _walk(json.loads(body, object_pairs_hook=_Pairs), "")
        return [f'duplicate field "{path}"' for path in dict.fromkeys(found)]
    return []


def _refuse(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise _Found


_refusing = json.JSONDecoder(object_pairs_hook=_refuse).decode


def _walk(node: Any, path: str) -> Iterator[str]:
    if isinstance(node, _Pairs):
        seen: set[str] = set()
        for name, value in node:
            here = f"{path}.{name}" if path else name
            if name in seen:
                yield here
            seen.add(name)
            yield from _walk(value, here)
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from _walk(item, f"{path}[{index}]")


def in_yaml(body: bytes) -> list[str]:
    """`line 7: key "replicas" already set in map` for each key given again in `body`, which is good YAML."""
    if yamlbody.may_be_json(body):
        with suppress(ValueError):  # a tenth of the time, and nearly always enough
            if not in_json(body):
                return []
    return list(_keys(yamlbody.compose(body)))


def _keys(node: yaml.Node | None) -> Iterator[str]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    yield f'line {key.start_mark.line + 1}: key "{key.value}" already set in map'
                seen.add(key.value)
            yield from _keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _keys(item)
