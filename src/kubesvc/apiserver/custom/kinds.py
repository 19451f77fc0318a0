"""The custom kinds served now, made from the definitions there are. `following` keeps them up to date."""

from __future__ import annotations

from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.apiserver.custom.definition import is_true, kinds
from kubesvc.apiserver.custom.kind import CustomKind


class Kinds:
    """`served` are the kinds in the order of discovery; `generation` changes whenever they do."""

    def __init__(self) -> None:
        self.served: tuple[CustomKind, ...] = ()
        self.generation = 0
        self.definitions: dict[str, JSON] = {}  # key -> definition
        self._by_path: dict[tuple[str, str, str], CustomKind] = {}  # (group, version, plural) -> kind

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        return self._by_path.get((group, version, plural))

    def versions(self, kind: Kind) -> list[CustomKind]:
        """The served versions of a custom kind; none of another."""
        if not isinstance(kind, CustomKind):
            return []
        return [other for other in self.served if (other.group, other.plural) == (kind.group, kind.plural)]

    def put(self, key: str, tree: JSON | None) -> None:
        """A definition as it is now; None: it is gone."""
        if tree is None:
            self.definitions.pop(key, None)
        else:
            self.definitions[key] = tree
        self._rebuild()

    def replace(self, definitions: dict[str, JSON]) -> None:
        self.definitions = definitions
        self._rebuild()

    def _rebuild(self) -> None:
        established = (tree for _, tree in sorted(self.definitions.items()) if is_true(tree, "Established"))
        self.served = tuple(kind for tree in established for kind in kinds(tree))
        self._by_path = {(kind.group, kind.version, kind.plural): kind for kind in self.served}
        self.generation += 1
