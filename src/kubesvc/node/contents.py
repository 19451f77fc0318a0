"""The files of a pod's volumes: from ConfigMaps, Secrets and the pod itself, one source or several. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from kubesvc.api.pods import (
    ConfigMapVolume,
    DownwardAPIVolume,
    KeyToPath,
    Pod,
    ResourceFieldSelector,
    SecretProjection,
    ServiceAccountTokenProjection,
    Volume,
)
from kubesvc.node.environment import ConfigError, Sources, decode

Fields = Callable[[str | ResourceFieldSelector], str]
"""A downward-API field by its path, or of a container's resources. Raises ConfigError."""


class Files(msgspec.Struct):
    """path -> bytes, path -> mode where one is given, and the mode of the rest."""

    data: dict[str, bytes] = {}
    modes: dict[str, int] = {}
    default: int = 0o644
    owners: dict[str, tuple[int, int]] = {}  # path -> (user, group), -1 for what it is anyway

    def give(self, group: int) -> None:
        """Whoever is in `group` may read every one of them."""
        for path in self.data:
            self.modes[path] = self.modes.get(path, self.default) | 0o440
            self.owners.setdefault(path, (-1, group))

    def add(self, more: Files) -> None:
        """Those of another source; the later one of a path wins."""
        self.data |= more.data
        self.modes |= more.modes
        self.owners |= more.owners


def of_volume(volume: Volume, pod: Pod, sources: Sources, fields: Fields) -> Files:
    """What a volume of files holds, readable for the pod's fsGroup. Raises ConfigError."""
    found = _of_source(volume, pod, sources, fields)
    if pod.spec.security_context is not None and pod.spec.security_context.fs_group is not None:
        found.give(pod.spec.security_context.fs_group)
    return found


def _of_source(volume: Volume, pod: Pod, sources: Sources, fields: Fields) -> Files:
    if volume.config_map is not None:
        return _config_map(volume.config_map, sources)
    if volume.secret is not None:
        wanted = volume.secret
        found = _secret(SecretProjection(wanted.secret_name, wanted.items, wanted.optional), sources)
        found.default = wanted.default_mode
        return found
    if volume.downward_api is not None:
        return _downward(volume.downward_api, pod, fields)
    if volume.projected is not None:
        whole = Files(default=volume.projected.default_mode)
        for source in volume.projected.sources:
            if source.config_map is not None:
                whole.add(_config_map(source.config_map, sources))
            elif source.secret is not None:
                whole.add(_secret(source.secret, sources))
            elif source.downward_api is not None:
                whole.add(_downward(source.downward_api, pod, fields))
            elif source.service_account_token is not None:
                whole.add(_token(source.service_account_token, pod, sources, whole.default))
            else:
                why = "only configMap, secret, downwardAPI and serviceAccountToken are supported"
                raise ConfigError(f"projected: {why}")
        return whole
    raise ConfigError(
        "this type of volume is not supported: use emptyDir, hostPath, configMap, secret, downwardAPI, projected, image"
    )


def _config_map(wanted: ConfigMapVolume, sources: Sources) -> Files:
    found = sources.config_maps.get(wanted.name)
    data = None
    if found is not None:
        data = {key: text.encode() for key, text in found.data.items()}
        data |= {key: decode(text) for key, text in found.binary_data.items()}
    chosen = _keys("configmap", wanted.name, data, wanted.items, wanted.optional)
    return Files(chosen, _modes(wanted.items), wanted.default_mode)


def _token(wanted: ServiceAccountTokenProjection, pod: Pod, sources: Sources, default: int) -> Files:
    """Its mode as upstream's: where the pod says who it runs as, or its fsGroup, nobody else may read it."""
    _check(wanted.path)
    token = sources.tokens.get(wanted)
    if token is None:
        raise ConfigError(f"failed to fetch token: there is none for serviceaccount {pod.spec.service_account_name}")
    context = pod.spec.security_context
    group, user = context.fs_group if context is not None else None, _only_user(pod)
    files = Files({wanted.path: token.encode()}, {wanted.path: default})
    if group is not None or user is not None:
        files.modes[wanted.path] = 0o600 if group is None else 0o640
        files.owners[wanted.path] = (-1 if user is None else user, -1 if group is None else group)
    return files


def _only_user(pod: Pod) -> int | None:
    """The user that every container runs as; None where they aren't told, or differ."""
    of_pod = pod.spec.security_context.run_as_user if pod.spec.security_context is not None else None
    users = set()
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        own = container.security_context.run_as_user if container.security_context is not None else None
        users.add(of_pod if own is None else own)
    return users.pop() if len(users) == 1 else None


def _secret(wanted: SecretProjection, sources: Sources) -> Files:
    found = sources.secrets.get(wanted.name)
    data = None if found is None else {key: decode(text) for key, text in found.data.items()}
    return Files(_keys("secret", wanted.name, data, wanted.items, wanted.optional), _modes(wanted.items))


def _downward(wanted: DownwardAPIVolume, pod: Pod, fields: Fields) -> Files:
    found = Files(default=wanted.default_mode)
    for item in wanted.items:
        _check(item.path)
        if item.resource_field_ref is not None:
            text = fields(item.resource_field_ref)
        elif item.field_ref is not None:
            path = item.field_ref.field_path
            whole = {"metadata.labels": pod.metadata.labels, "metadata.annotations": pod.metadata.annotations}.get(path)
            text = fields(path) if whole is None else _lines(whole)
        else:
            raise ConfigError(f"downwardAPI: item {item.path!r} has neither fieldRef nor resourceFieldRef")
        found.data[item.path] = text.encode()
        if item.mode is not None:
            found.modes[item.path] = item.mode
    return found


def _lines(texts: Mapping[str, str]) -> str:
    """key="value", a line each, in order; quoted as upstream does."""
    return "\n".join(f"{key}={msgspec.json.encode(value).decode()}" for key, value in sorted(texts.items()))


def _check(path: str) -> None:
    if ".." in path.split("/") or path.startswith("/"):
        raise ConfigError(f"item path {path!r} must be relative and without '..'")


def _keys(
    what: str, name: str, data: Mapping[str, bytes] | None, items: list[KeyToPath], optional: bool
) -> dict[str, bytes]:
    if data is None and not optional:
        raise ConfigError(f'{what} "{name}" not found')
    if not items:
        return dict(data or {})
    chosen = {}
    for item in items:
        _check(item.path)
        if item.key in (data or {}):
            chosen[item.path] = (data or {})[item.key]
        elif not optional:
            raise ConfigError(f"{what} references non-existent config key: {item.key}")
    return chosen


def _modes(items: list[KeyToPath]) -> dict[str, int]:
    return {item.path: item.mode for item in items if item.mode is not None}
