"""Fields that are stored but that nothing here acts on yet: each is answered with a warning, so that nothing asked for
is silently left out. When a room learns one, its line goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kubesvc.api.meta import JSON

_SERVED_VOLUMES = ("name", "emptyDir", "configMap", "secret", "downwardAPI", "projected", "hostPath",
                   "persistentVolumeClaim")  # fmt: skip

# a field of a spec -> whether its value asks for something that isn't done, and what happens instead
_POD: dict[str, tuple[Callable[[Any], bool], str]] = {
    "priorityClassName": (bool, "no pod makes way for another"),
    "runtimeClassName": (bool, "the machine's own runtime is used"),
}

_CONTAINER: dict[str, tuple[Callable[[Any], bool], str]] = {
    "volumeDevices": (bool, "there are no block devices"),
}


_JOB: dict[str, tuple[Callable[[Any], bool], str]] = {
    "podFailurePolicy": (bool, "every failure of a pod counts the same"),
    "successPolicy": (bool, "all completions are needed"),
    "backoffLimitPerIndex": (lambda value: value is not None, "failures are counted over all indexes"),
    "managedBy": (bool, "the Job is carried out all the same"),
}


def in_job_spec(spec: JSON, path: str) -> Iterator[str]:
    """`spec` is a JobSpec at `path`."""
    yield from _told(_JOB, spec, path)


def in_pod_spec(spec: JSON, path: str) -> Iterator[str]:
    """`spec` is a PodSpec at `path`."""
    yield from _told(_POD, spec, path)
    for section in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(section) or ()):
            where = f"{path}.{section}[{index}]"
            yield from _told(_CONTAINER, container, where)
    for index, volume in enumerate(spec.get("volumes") or ()):
        for source in volume:
            if source not in _SERVED_VOLUMES:
                yield f"{path}.volumes[{index}].{source} is not served yet: the pod can't start with it"


def _told(fields: dict[str, tuple[Callable[[Any], bool], str]], tree: JSON, path: str) -> Iterator[str]:
    for field, (asks, instead) in fields.items():
        if asks(tree.get(field)):
            yield f"{path}.{field} is stored, but not acted on yet: {instead}"
