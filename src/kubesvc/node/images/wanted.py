"""The image one container wants: had, pulled as imagePullPolicy says, or waited for with upstream's reasons and words.

not here ─► ContainerCreating (pulling) ─► here
                  └─► ErrImagePull ─► ImagePullBackOff, 10 s, 20 s, … 5 min ─► pulling again
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from kubesvc.api.core import Secret
from kubesvc.api.errors import ApiError
from kubesvc.api.pods import Container, Pod
from kubesvc.client.session import Unreachable
from kubesvc.node.images import credentials, image, reference
from kubesvc.node.images.credentials import Keyring
from kubesvc.node.images.image import HOST, Image, ImageError
from kubesvc.node.images.puller import Puller
from kubesvc.node.images.reference import Reference
from kubesvc.node.images.store import Store

log = logging.getLogger(__name__)

FIRST_DELAY, MAX_DELAY = 10.0, 300.0
SHOWN = 1.0  # seconds that ErrImagePull is shown before the back-off is
PULLING = 3600.0

Tell = Callable[..., None]  # (reason, message, warning=False)
ReadSecret = Callable[[str, str], Awaitable[Secret | None]]


class NotYet(Exception):
    """The container waits: `reason` and the message are its state's; it is to be looked at again at `retry_at`."""

    def __init__(self, reason: str, message: str, retry_at: float) -> None:
        super().__init__(message)
        self.reason, self.retry_at = reason, retry_at


class Images:
    """What an agent's containers get their images from."""

    def __init__(self, store: Store, puller: Puller, docker_config: Path | None, secret: ReadSecret) -> None:
        self.store, self.puller = store, puller
        self._docker_config, self._secret = docker_config, secret

    async def keyring(self, pod: Pod) -> tuple[Keyring, list[str]]:
        """The pod's imagePullSecrets, then the machine's own; and the Secrets that aren't there. Raises ImageError."""
        found: Keyring = ()
        missing = []
        for wanted in pod.spec.image_pull_secrets:
            secret = await self._secret(pod.namespace, wanted.name)
            if secret is None:
                missing.append(wanted.name)
            else:
                found += credentials.of_secret(secret)
        if self._docker_config is not None:
            try:
                found += credentials.decode(self._docker_config.read_bytes(), str(self._docker_config))
            except OSError:
                pass
        return found, missing


class WantedImage:
    """`changed` is called when it is worth asking again; `tell` writes events of the container."""

    def __init__(self, images: Images, tell: Tell, changed: Callable[[], None]) -> None:
        self._images, self._tell, self._changed = images, tell, changed
        self._task: asyncio.Task[Image] | None = None
        self._failures = 0
        self._until = 0.0  # no pull before
        self._why = ""

    def obtain(self, pod: Pod, container: Container, now: float) -> Image:
        """The image to start the container of. Raises NotYet."""
        name = container.image
        if image.is_host(name):
            self._tell("Pulled", f'Container image "{name}" already present on machine')
            return HOST
        task = self._task
        if task is not None:
            if not task.done():
                raise NotYet("ContainerCreating", "", now + PULLING)
            self._task = None
            return self._pulled(name, task, now)
        try:
            wanted = reference.parse(name)
        except ValueError as error:
            text = f'Failed to apply default image tag "{name}": {error}'
            self._tell("InspectFailed", text, warning=True)
            self._tell("Failed", "Error: InvalidImageName", warning=True)
            raise NotYet("InvalidImageName", text, now + FIRST_DELAY) from error
        if container.image_pull_policy != "Always":
            found = self._images.store.find(wanted)
            if found is not None:
                self._failures, self._until = 0, 0.0
                self._tell("Pulled", f'Container image "{name}" already present on machine')
                return found
            if container.image_pull_policy == "Never":
                text = f'Container image "{name}" is not present with pull policy of Never'
                self._tell("ErrImageNeverPull", text, warning=True)
                self._tell("Failed", "Error: ErrImageNeverPull", warning=True)
                raise NotYet("ErrImageNeverPull", text, now + FIRST_DELAY)
        if now < self._until:
            self._tell("BackOff", f'Back-off pulling image "{name}"')
            self._tell("Failed", "Error: ImagePullBackOff", warning=True)
            raise NotYet("ImagePullBackOff", f'Back-off pulling image "{name}": {self._why}', self._until)
        self._task = asyncio.get_running_loop().create_task(self._pull(pod, wanted, name))
        self._task.add_done_callback(lambda _: self._changed())
        raise NotYet("ContainerCreating", "", now + PULLING)

    def _pulled(self, name: str, task: asyncio.Task[Image], now: float) -> Image:
        if task.cancelled():
            raise NotYet("ContainerCreating", "", now + SHOWN)
        try:
            found = task.result()
        except ImageError as error:
            delay = min(FIRST_DELAY * 2.0 ** min(self._failures, 10), MAX_DELAY)
            self._failures += 1
            self._until, self._why = now + delay, f"{error.reason}: {error}"
            self._tell("Failed", f'Failed to pull image "{name}": {error}', warning=True)
            self._tell("Failed", f"Error: {error.reason}", warning=True)
            raise NotYet(error.reason, str(error), now + SHOWN) from error
        self._failures, self._until = 0, 0.0
        return found

    async def _pull(self, pod: Pod, wanted: Reference, name: str) -> Image:
        began = time.monotonic()
        self._tell("Pulling", f'Pulling image "{name}"')
        try:
            keyring, missing = await self._images.keyring(pod)
        except (ApiError, Unreachable) as error:
            raise ImageError(f"image pull Secrets of the pod can't be read: {error}") from error
        if missing:
            text = "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed."
            self._tell("FailedToRetrieveImagePullSecret", text.format(", ".join(missing)), warning=True)
        found = await self._images.puller.pull(wanted, credentials.matching(keyring, wanted))
        took = _shown(time.monotonic() - began)
        text = (
            f'Successfully pulled image "{name}" in {took} ({took} including waiting). Image size: {found.size} bytes.'
        )
        self._tell("Pulled", text)
        return found

    def leave(self) -> None:
        """Nobody waits for it any more."""
        if self._task is not None:
            self._task.cancel()


def _shown(seconds: float) -> str:
    """As Go prints a duration, rounded to milliseconds."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return (f"{minutes}m" if minutes else "") + f"{rest / 1000:g}s"
