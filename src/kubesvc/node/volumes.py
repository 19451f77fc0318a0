"""A pod's volumes on disk: directories, files made for the pod, paths of the machine; where containers mount them.

Keys are laid out as upstream's atomic writer does, so that an update can be one rename:

    volumes/NAME/key -> ..data/key          volumes/NAME/..data -> ..1          volumes/NAME/..1/key
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from kubesvc.api.core import Container, HostPathVolume, Pod
from kubesvc.kernel import mounts
from kubesvc.node import contents
from kubesvc.node.config import PodPaths
from kubesvc.node.contents import Fields
from kubesvc.node.environment import ConfigError, Sources
from kubesvc.node.spec import Bind


def prepare(pod: Pod, paths: PodPaths, sources: Sources, fields: Fields) -> None:
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
            if volume.host_path is not None:
                _host_path(volume.host_path)
                continue
            files = contents.of_volume(volume, pod, sources, fields)
        except ConfigError as error:
            raise ConfigError(f'MountVolume.SetUp failed for volume "{volume.name}" : {error}') from error
        _write(target, files.data, files.modes, files.default)


def _kernel_size(limit: int | str | None) -> str:
    """A quantity such as 64Mi in the kernel's spelling; "" for what it can't express."""
    text = str(limit or "")
    for suffix, short in (("Ki", "k"), ("Mi", "m"), ("Gi", "g")):
        if text.endswith(suffix) and text[:-2].isdigit():
            return text[:-2] + short
    return text if text.isdigit() else ""


_OF_TYPE: dict[str, tuple[Callable[[Path], bool], str]] = {
    "Directory": (Path.is_dir, "directory"),
    "DirectoryOrCreate": (Path.is_dir, "directory"),
    "File": (Path.is_file, "file"),
    "FileOrCreate": (Path.is_file, "file"),
    "Socket": (Path.is_socket, "socket file"),
    "CharDevice": (Path.is_char_device, "character device"),
    "BlockDevice": (Path.is_block_device, "block device"),
}


def _host_path(wanted: HostPathVolume) -> None:
    """Make what may be made, and see that it is what was asked for. Raises ConfigError, OSError."""
    path = Path(wanted.path)
    if not path.exists() and wanted.type in ("", "DirectoryOrCreate"):
        path.mkdir(parents=True, mode=0o755)
    elif not path.exists() and wanted.type == "FileOrCreate":
        path.touch(mode=0o644)
    if wanted.type:
        fits, name = _OF_TYPE.get(wanted.type, (Path.exists, wanted.type))
        if not fits(path):
            raise ConfigError(f"hostPath type check failed: {path} is not a {name}")


def _write(target: Path, found: Mapping[str, bytes], modes: Mapping[str, int], default: int) -> None:
    whole = target.with_name(target.name + ".new")
    shutil.rmtree(whole, ignore_errors=True)
    data = whole / "..1"
    data.mkdir(parents=True)
    (whole / "..data").symlink_to("..1")
    for name, content in found.items():
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
        source = paths.volume(mount.name) if volume.host_path is None else Path(volume.host_path.path)
        if mount.sub_path:
            source = _sub_path(source, mount.sub_path)
        read_only = mount.read_only or (volume.empty_dir is None and volume.host_path is None)
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
