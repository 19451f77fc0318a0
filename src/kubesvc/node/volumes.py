"""A pod's volumes on disk: emptyDir, configMap and secret, and where containers mount them.

Keys are laid out as upstream's atomic writer does, so that an update can be one rename:

    volumes/NAME/key -> ..data/key          volumes/NAME/..data -> ..1          volumes/NAME/..1/key
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from kubesvc.api.core import Container, KeyToPath, Pod, Volume
from kubesvc.kernel import mounts
from kubesvc.node.config import PodPaths
from kubesvc.node.environment import ConfigError, Sources, decode
from kubesvc.node.spec import Bind


def prepare(pod: Pod, paths: PodPaths, sources: Sources) -> None:
    """Make what is missing of the pod's volumes. Raises ConfigError; the message is the event's."""
    for volume in pod.spec.volumes:
        target = paths.volume(volume.name)
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if volume.empty_dir is not None:
            target.mkdir()
            target.chmod(0o777)
            if volume.empty_dir.medium == "Memory":
                mounts.mount_tmpfs(target, size=_kernel_size(volume.empty_dir.size_limit))
            continue
        try:
            contents, modes, default = _contents(pod, volume, sources)
        except ConfigError as error:
            raise ConfigError(f'MountVolume.SetUp failed for volume "{volume.name}" : {error}') from error
        _write(target, contents, modes, default)


def _kernel_size(limit: int | str | None) -> str:
    """A quantity such as 64Mi in the kernel's spelling; "" for what it can't express."""
    text = str(limit or "")
    for suffix, short in (("Ki", "k"), ("Mi", "m"), ("Gi", "g")):
        if text.endswith(suffix) and text[:-2].isdigit():
            return text[:-2] + short
    return text if text.isdigit() else ""


def _contents(pod: Pod, volume: Volume, sources: Sources) -> tuple[dict[str, bytes], dict[str, int], int]:
    """path -> bytes, path -> mode where one is given, and the mode of the rest."""
    if volume.config_map is not None:
        wanted = volume.config_map
        found = sources.config_maps.get(wanted.name)
        name, what = wanted.name, "configmap"
        data = {} if found is None else {key: text.encode() for key, text in found.data.items()}
        if found is not None:
            data |= {key: decode(text) for key, text in found.binary_data.items()}
        missing = found is None
        items, optional, default = wanted.items, wanted.optional, wanted.default_mode
    elif volume.secret is not None:
        secret = sources.secrets.get(volume.secret.secret_name)
        name, what = volume.secret.secret_name, "secret"
        data = {} if secret is None else {key: decode(text) for key, text in secret.data.items()}
        missing = secret is None
        items, optional, default = volume.secret.items, volume.secret.optional, volume.secret.default_mode
    else:
        raise ConfigError("this type of volume is not supported: use emptyDir, configMap or secret")
    if missing and not optional:
        raise ConfigError(f'{what} "{name}" not found')
    if not items:
        return data, {}, default
    return _selected(items, data, f"{what} references non-existent config key", optional), _modes(items), default


def _selected(items: list[KeyToPath], data: Mapping[str, bytes], missing: str, optional: bool) -> dict[str, bytes]:
    chosen = {}
    for item in items:
        if ".." in PurePosixPath(item.path).parts or item.path.startswith("/"):
            raise ConfigError(f"item path {item.path!r} must be relative and without '..'")
        if item.key in data:
            chosen[item.path] = data[item.key]
        elif not optional:
            raise ConfigError(f"{missing}: {item.key}")
    return chosen


def _modes(items: list[KeyToPath]) -> dict[str, int]:
    return {item.path: item.mode for item in items if item.mode is not None}


def _write(target: Path, contents: Mapping[str, bytes], modes: Mapping[str, int], default: int) -> None:
    whole = target.with_name(target.name + ".new")
    shutil.rmtree(whole, ignore_errors=True)
    data = whole / "..1"
    data.mkdir(parents=True)
    (whole / "..data").symlink_to("..1")
    for name, content in contents.items():
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(modes.get(name, default))
        top = PurePosixPath(name).parts[0]
        if not (whole / top).is_symlink():
            (whole / top).symlink_to(f"..data/{top}")
    whole.rename(target)


def binds(pod: Pod, container: Container, paths: PodPaths) -> list[Bind]:
    """What the container's volumeMounts come to. Raises ConfigError for one that can't be."""
    volumes = {volume.name: volume for volume in pod.spec.volumes}
    found = []
    for mount in container.volume_mounts:
        volume = volumes.get(mount.name)
        if volume is None:
            raise ConfigError(f'volumeMounts: there is no volume named "{mount.name}"')
        source = paths.volume(mount.name)
        if mount.sub_path:
            source = _sub_path(source, mount.sub_path)
        read_only = mount.read_only or volume.empty_dir is None
        found.append(Bind(str(source), mount.mount_path, read_only=read_only))
    return found


def _sub_path(volume: Path, sub_path: str) -> Path:
    """The real path of a subPath, made as a directory if missing; never outside the volume, whatever links say."""
    root = volume.resolve()
    real = (root / sub_path).resolve()
    if not real.is_relative_to(root):
        raise ConfigError(f"subPath {sub_path!r} leaves its volume")
    if not os.path.lexists(real):
        real.mkdir(parents=True)
        real.chmod(0o777)
    return real
