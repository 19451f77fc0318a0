"""Objects and tables as kubectl prints them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import yaml

from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind

STRING = "tag:yaml.org,2002:str"


class _Dumper(yaml.SafeDumper):
    """A text that would be read as something else is in double quotes; one of several lines is a block."""


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    plain = dumper.resolve(yaml.ScalarNode, value, (True, False)) == STRING  # type: ignore[no-untyped-call]
    style = "|" if "\n" in value else None if plain else '"'
    return dumper.represent_scalar(STRING, value, style=style)


_Dumper.add_representer(str, _text)


def named(kind: Kind, name: str) -> str:
    """deployment.apps/web"""
    return f"{kind.singular}{'.' + kind.group if kind.group else ''}/{name}"


def objects(found: Sequence[tuple[Kind, JSON]], output: str) -> str:
    """Objects and lists of them: `output` is json, yaml or name."""
    several = len(found) > 1 or "items" in found[0][1]
    each = [(kind, item) for kind, tree in found for item in tree.get("items", [tree])]
    if output == "name":
        return "".join(named(kind, item["metadata"]["name"]) + "\n" for kind, item in each)
    items = [_shown(kind, item) for kind, item in each]
    whole = {"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}}
    tree = whole if several else items[0]
    if output == "yaml":
        return yaml.dump(tree, Dumper=_Dumper, default_flow_style=False, width=10_000, allow_unicode=True)
    return msgspec.json.format(msgspec.json.encode(tree, order="sorted"), indent=4).decode() + "\n"


def _shown(kind: Kind, tree: JSON) -> JSON:
    meta = {key: value for key, value in tree["metadata"].items() if key != "managedFields"}
    return {"apiVersion": kind.api_version, "kind": kind.kind} | tree | {"metadata": meta}


def rows(table: JSON, *, wide: bool, headers: bool, everywhere: bool, kind: Kind | None = None) -> list[str]:
    """A table's lines, in columns as kubectl sets them; with `kind`, names say what they are names of."""
    shown = [i for i, column in enumerate(table["columnDefinitions"]) if wide or not column.get("priority")]
    lines: list[list[str]] = []
    if headers and table["rows"]:
        lines.append(
            (["NAMESPACE"] if everywhere else []) + [table["columnDefinitions"][i]["name"].upper() for i in shown]
        )
    for row in table["rows"]:
        cells = ["<none>" if row["cells"][i] is None else str(row["cells"][i]) for i in shown]
        if kind is not None:
            cells[0] = named(kind, cells[0])
        lines.append(([row["object"]["metadata"]["namespace"]] if everywhere else []) + cells)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["".join(c.ljust(w + 3) for c, w in zip(line[:-1], widths, strict=False)) + line[-1] for line in lines]
