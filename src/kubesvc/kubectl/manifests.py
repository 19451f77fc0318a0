"""Manifests as people write them: YAML or JSON, several to a file, Lists; and the kinds that words mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import yaml

from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind


class KubectlError(Exception):
    """Can't be done; the message says why, in kubectl's words where it has some."""


def read(path: str, standard_input: Iterable[str]) -> Iterator[JSON]:
    """The objects in a file, in every .yaml, .yml and .json of a directory, or (-) on standard input."""
    if path == "-":
        yield from parse("".join(standard_input), "STDIN")
        return
    where = Path(path)
    if not where.exists():
        raise KubectlError(f'the path "{path}" does not exist')
    files = (
        [p for p in sorted(where.iterdir()) if p.suffix in (".yaml", ".yml", ".json")] if where.is_dir() else [where]
    )
    for file in files:
        yield from parse(file.read_text(), str(file))


def parse(text: str, what: str) -> Iterator[JSON]:
    """Raises KubectlError."""
    try:
        documents = [found for found in yaml.safe_load_all(text) if found is not None]
    except yaml.YAMLError as error:
        raise KubectlError(f"error parsing {what}: {error}") from error
    for tree in documents:
        if not isinstance(tree, dict):
            raise KubectlError(f"error parsing {what}: expected objects, found {tree!r}")
        items = tree.get("items") if str(tree.get("kind", "")).endswith("List") else None
        for item in items if items is not None else [tree]:
            if missing := [f"{field} not set" for field in ("apiVersion", "kind") if not item.get(field)]:
                told = missing[0] if len(missing) == 1 else f"[{', '.join(missing)}]"
                raise KubectlError(f'error validating "{what}": error validating data: {told}')
            if not (item.get("metadata") or {}).get("name"):
                raise KubectlError(f"error: {what}: an object of kind {item.get('kind')!r} has no metadata.name")
            yield item


def kind_of(tree: JSON, kinds: Sequence[Kind]) -> Kind:
    """Raises KubectlError."""
    version, kind = tree.get("apiVersion", ""), tree.get("kind", "")
    found = next((k for k in kinds if (k.kind, k.api_version) == (kind, version)), None)
    if found is None:
        raise KubectlError(f'no matches for kind "{kind}" in version "{version}"')
    return found


def _kind_called(word: str, kinds: Sequence[Kind]) -> Kind:
    """A kind by plural, singular or short name, with or without its group. Raises KubectlError."""
    name, _, group = word.lower().partition(".")
    for kind in kinds:
        if name in (kind.plural, kind.singular, *kind.short_names) and group in ("", kind.group):
            return kind
    raise KubectlError(f'the server doesn\'t have a resource type "{word}"')


def _kinds_called(word: str, kinds: Sequence[Kind]) -> list[Kind]:
    """The kind, or all kinds of a category such as `all`. Raises KubectlError."""
    of_category = [kind for kind in kinds if word in kind.categories]
    return of_category or [_kind_called(word, kinds)]


def wanted(words: Iterable[str], among: Sequence[Kind]) -> list[tuple[Kind, str]]:
    """KIND[,KIND …] [NAME …] or KIND/NAME …: (kind, name), name "" for all. Raises KubectlError."""
    words = list(words)
    if any("/" in word for word in words):
        if not all("/" in word for word in words):
            raise KubectlError("there is no need to specify a resource type as a separate argument when passing "
                               "arguments in resource/name form")  # fmt: skip
        return [(_kind_called(word.partition("/")[0], among), word.partition("/")[2]) for word in words]
    if not words:
        raise KubectlError("You must specify the type of resource to get, such as `pods` or `service/NAME`.")
    kinds = [kind for word in words[0].split(",") for kind in _kinds_called(word, among)]
    return [(kind, name) for kind in kinds for name in words[1:] or [""]]
