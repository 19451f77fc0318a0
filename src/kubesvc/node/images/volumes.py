"""Image volumes: an image's files, read-only in a container, had as a container's own image is.

    images/NAME/rootfs   the image, mounted once for its pod: a later image of that name is another pod's

A restarted container finds it mounted, and so does an agent started later.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

from kubesvc.api.pods import Container, ImageVolume, Pod
from kubesvc.kernel import mounts
from kubesvc.node.config import PodPaths
from kubesvc.node.environment import ConfigError
from kubesvc.node.images import image, root
from kubesvc.node.images.image import ImageError
from kubesvc.node.images.wanted import Images, Tell, WantedImage
from kubesvc.node.runtime import RuntimeFailure


class ImageVolumes:
    """Those of one container; `tell` and `changed` as for its own image (wanted.py)."""

    def __init__(self, images: Images, paths: PodPaths, tell: Tell, changed: Callable[[], None]) -> None:
        self._images, self._paths, self._tell, self._changed = images, paths, tell, changed
        self._wanted: dict[str, WantedImage] = {}  # a volume's name -> its image

    def mount(self, pod: Pod, container: Container, now: float) -> None:
        """See that they are there. Raises NotYet, ConfigError, RuntimeFailure."""
        mounted = {mount.name for mount in container.volume_mounts}
        for volume in pod.spec.volumes:
            if volume.image is not None and volume.name in mounted:
                self._mount(pod, container, volume.name, volume.image, now)

    def _mount(self, pod: Pod, container: Container, name: str, wanted: ImageVolume, now: float) -> None:
        target = self._paths.image(name)
        if target.is_mount():
            return
        if image.is_host(wanted.reference):
            raise ConfigError(f'volume "{name}": the machine\'s own image has no files of its own: use hostPath')
        if name not in self._wanted:
            self._wanted[name] = WantedImage(self._images, self._tell, self._changed)
        alike = Container(container.name, wanted.reference, wanted.pull_policy)
        found = self._wanted[name].obtain(pod, alike, now)
        try:
            shutil.rmtree(target.parent, ignore_errors=True)  # what an agent that was killed had begun
            target.mkdir(parents=True)
            root.mount(self._images.store, found, target.parent)
        except (ImageError, OSError) as error:
            mounts.unmount_all(target.parent)
            raise RuntimeFailure(f'failed to mount image volume "{name}": {error}') from error

    def leave(self) -> None:
        """Nobody waits for them any more."""
        for wanted in self._wanted.values():
            wanted.leave()
