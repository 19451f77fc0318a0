"""A container's seccomp profile, the node's own or a file, as the runtime takes it (seccomp.py says what is in it).

A container whose profile can't be had doesn't run: RuntimeFailure, which its waiting state shows.
"""

from __future__ import annotations

import os
import platform

from kubesvc.api.meta import JSON
from kubesvc.api.pods import Container, Pod
from kubesvc.node import seccomp, seccomp_default, security
from kubesvc.node.config import NodeConfig
from kubesvc.node.runtime import Runtime, RuntimeFailure

LARGEST = 4 << 20  # bytes


def load(config: NodeConfig, runtime: Runtime, pod: Pod, container: Container) -> JSON | None:
    """None: every system call is allowed. Raises RuntimeFailure."""
    wanted = security.seccomp(pod, container)
    if wanted is None:
        return None
    if not runtime.features.seccomp:
        raise RuntimeFailure(f"seccomp is not supported: {config.runtime} or the kernel is built without it")
    machine = platform.machine()
    capabilities = security.capabilities(container, runtime.capabilities)
    if wanted.type != "Localhost":
        return seccomp_default.build(machine, capabilities)
    path = config.seccomp / (wanted.localhost_profile or "")
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST)
    except OSError as error:
        why = f"open {path}: {(error.strerror or str(error)).lower()}"
        raise RuntimeFailure(f'cannot load seccomp profile "{path}": {why}') from error
    try:
        return seccomp.decode(text, machine, capabilities, _kernel())
    except ValueError as error:
        raise RuntimeFailure(f'cannot load seccomp profile "{path}": {error}') from error


def _kernel() -> tuple[int, int]:
    """6.1.0-18-amd64 is (6, 1)."""
    major, minor, *_ = os.uname().release.split(".")
    digits = "".join(c for c in minor if c.isdigit())
    return int(major), int(digits or 0)
