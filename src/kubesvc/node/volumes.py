"""A pod's volumes on disk: directories, files made for the pod, paths of the machine; where containers mount them.

Keys are laid out as upstream's atomic writer does, so that an update can be one rename:

    volumes/NAME/key -> ..data/key          volumes/NAME/..data -> ..1          volumes/NAME/..1/key
"""

from __future__ import annotations

import math
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from kubesvc.api.pods import Container, HostPathVolume, Pod
from kubesvc.api.quantity import quantity
from kubesvc.kernel import mounts
from kubesvc.node import contents, mounting
from kubesvc.node.config import PodPaths
from kubesvc.node.contents import Fields, Files
from kubesvc.node.environment import ConfigError, Sources, expand, unknown
from kubesvc.node.runtime import RuntimeFailure
from kubesvc.node.spec import Bind


def prepare(pod: Pod, paths: PodPaths, sources: Sources, fields: Fields) -> None:
    """Make what is missing of the pod's volumes. Raises ConfigError; the message is the event's."""
    for volume in pod.spec.volumes:
        target = paths.volume(volume.name)
        if target.exists() or volume.image is not None:  # a container's start has to do with images
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if volume.empty_dir is not None:
            target.mkdir()
            target.chmod(0o777)
            if volume.empty_dir.medium == "Memory":
                mounts.mount_tmpfs(target, size=_kernel_size(volume.empty_dir.size_limit))
            if pod.spec.security_context is not None and pod.spec.security_context.fs_group is not None:
                os.chown(target, -1, pod.spec.security_context.fs_group)
                target.chmod(stat.S_IMODE(target.stat().st_mode) | 0o2770)
            continue
        try:
            if volume.host_path is not None:
                _host_path(volume.host_path)
                continue
            files = contents.of_volume(volume, pod, sources, fields)
        except ConfigError as error:
            raise ConfigError(f'MountVolume.SetUp failed for volume "{volume.name}" : {error}') from error
        _write(target, files)


def _kernel_size(limit: int | str | None) -> str:
    """A quantity such as 64Mi in bytes; "" for none."""
    size = quantity(limit) if limit is not None else None
    return str(math.ceil(size)) if size else ""


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


def refresh(pod: Pod, paths: PodPaths, sources: Sources, fields: Fields) -> None:
    """Bring the files of running volumes up to date; those of a source that is gone stay. Raises ConfigError."""
    for volume in pod.spec.volumes:
        target = paths.volume(volume.name)
        if volume.empty_dir is not None or volume.host_path is not None or not (target / "..data").is_symlink():
            continue
        try:
            files = contents.of_volume(volume, pod, sources, fields)
        except ConfigError as error:
            raise ConfigError(f'MountVolume.SetUp failed for volume "{volume.name}" : {error}') from error
        _replace(target, files)


def _write(target: Path, files: Files) -> None:
    whole = target.with_name(target.name + ".new")
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir(parents=True)
    _fill(whole / "..1", files)
    (whole / "..data").symlink_to("..1")
    _link(whole, files)
    whole.rename(target)


def _replace(target: Path, files: Files) -> None:
    """The new files at once, by one rename: who has an old one open goes on reading it."""
    before = (target / "..data").resolve()
    if _same(before, files):
        return
    after = target / f"..{int(before.name[2:]) + 1}"
    shutil.rmtree(after, ignore_errors=True)
    _fill(after, files)
    turning = target / "..data_tmp"
    turning.unlink(missing_ok=True)
    turning.symlink_to(after.name)
    turning.rename(target / "..data")
    _link(target, files)
    shutil.rmtree(before)


def _fill(data: Path, files: Files) -> None:
    data.mkdir()
    for name, content in files.data.items():
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(files.modes.get(name, files.default))
        if name in files.owners:
            os.chown(path, *files.owners[name])


def _link(target: Path, files: Files) -> None:
    """A link to each of the files or directories on top, and no other."""
    wanted = {PurePosixPath(name).parts[0] for name in files.data}
    for name in wanted:
        if not (target / name).is_symlink():
            (target / name).symlink_to(f"..data/{name}")
    for path in target.iterdir():
        if path.is_symlink() and path.name not in {"..data", *wanted}:
            path.unlink()


def _same(data: Path, files: Files) -> bool:
    found = {str(path.relative_to(data)): path for path in data.rglob("*") if path.is_file()}
    return found.keys() == files.data.keys() and all(
        path.read_bytes() == files.data[name] and path.stat().st_mode & 0o7777 == files.modes.get(name, files.default)
        for name, path in found.items()
    )


def binds(
    pod: Pod, container: Container, paths: PodPaths, variables: Mapping[str, str], *, all_read_only: bool
) -> list[Bind]:
    """What the container's volumeMounts come to; `variables` are its environment; `all_read_only`: whether the machine
    can make what is mounted below a volume read-only. Raises ConfigError, RuntimeFailure for one that can't be."""
    volumes = {volume.name: volume for volume in pod.spec.volumes}
    found = []
    for mount in container.volume_mounts:
        volume = volumes.get(mount.name)
        if volume is None:
            raise ConfigError(f'volumeMounts: there is no volume named "{mount.name}"')
        source = paths.volume(mount.name) if volume.image is None else paths.image(mount.name)
        source = source if volume.host_path is None else Path(volume.host_path.path)
        if sub_path := mount.sub_path or _expanded(mount.sub_path_expr, variables):
            source = _sub_path(source, sub_path, may_make=volume.image is None)
        claimed = volume.persistent_volume_claim
        read_only = mount.read_only or (claimed is not None and claimed.read_only)
        read_only = read_only or (volume.empty_dir is None and volume.host_path is None)
        deep = mounting.all_read_only(mount, possible=all_read_only)
        propagation = mounting.propagation(mount)
        if propagation != "rprivate":
            on = mounts.enclosing(source)
            if problem := mounting.unfit(str(source), propagation, str(on.point), shared=on.shared, slave=on.slave):
                raise RuntimeFailure(problem)
        found.append(Bind(str(source), mount.mount_path, read_only, True, deep, propagation))
    return found


def _expanded(expression: str, variables: Mapping[str, str]) -> str:
    """A subPathExpr with its variables in it. Raises ConfigError."""
    if missing := unknown(expression, variables):
        raise ConfigError(f'failed to expand subPathExpr "{expression}": missing value for "{missing}"')
    path = expand(expression, variables)
    if path.startswith("/") or ".." in path.split("/"):
        raise ConfigError(f'subPathExpr "{expression}" comes to "{path}": expected a relative path without ".."')
    return path


def _sub_path(volume: Path, sub_path: str, *, may_make: bool) -> Path:
    """The real path of a subPath, made as a directory if missing; never outside the volume, whatever links say.

    Raises ConfigError, RuntimeFailure."""
    root = volume.resolve()
    real = (root / sub_path).resolve()
    if not real.is_relative_to(root):
        raise ConfigError(f"subPath {sub_path!r} leaves its volume")
    if not may_make and not os.path.lexists(real):
        raise RuntimeFailure(f"subPath {sub_path!r} is not in the image")
    if not os.path.lexists(real):
        real.mkdir(parents=True)
        real.chmod(0o777)
    return real
