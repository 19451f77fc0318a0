"""What a container's requests and limits come to in its control group: the OCI runtime spec's `resources`. Pure.

Follows the kubelet: a CPU limit is a quota of each 100 ms, a CPU request shares (1024 a CPU), a memory limit a limit of
memory. Without a request, the limit is one.
"""

from __future__ import annotations

from kubesvc.api.meta import JSON
from kubesvc.api.pods import ResourceRequirements
from kubesvc.api.quantity import quantity

PERIOD = 100_000  # µs
LEAST_QUOTA = 1_000  # µs
LEAST_SHARES, MOST_SHARES = 2, 262_144
ENFORCED = ("cpu", "memory")


def limits(wanted: ResourceRequirements) -> list[str]:
    """The names of the limits that control groups enforce, of those given."""
    return [name for name in ENFORCED if quantity(wanted.limits.get(name, 0))]


def build(wanted: ResourceRequirements) -> JSON:
    """Empty where nothing is asked for."""
    found: JSON = {}
    cpu = quantity(wanted.limits.get("cpu", 0)) or 0
    share = quantity(wanted.requests.get("cpu", wanted.limits.get("cpu", 0))) or 0
    if cpu or share:
        found["cpu"] = {"shares": max(LEAST_SHARES, min(int(share * 1024), MOST_SHARES))}
    if cpu:
        found["cpu"] |= {"quota": max(LEAST_QUOTA, int(cpu * PERIOD)), "period": PERIOD}
    memory = quantity(wanted.limits.get("memory", 0)) or 0
    if memory:
        found["memory"] = {"limit": int(memory)}
    return found
