"""Which IP families a Service has: from what it asks for, what it had, and what the cluster is configured for.

    ipFamilyPolicy   SingleStack: one · PreferDualStack: two where the cluster has two · RequireDualStack: two
    not set          SingleStack on create (headless without selector: RequireDualStack), the old value on update

`settle` fills in policy and families and says what can't be; it changes nothing more when called again.
Source: pkg/registry/core/service/storage/alloc.go, KEP-563.
"""

from __future__ import annotations

from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission import service_spec as ask
from kubesvc.apiserver.admission.causes import invalid
from kubesvc.apiserver.admission.context import Cluster

SINGLE, PREFER, REQUIRE = "SingleStack", "PreferDualStack", "RequireDualStack"
_POLICY = "spec.ipFamilyPolicy"


def configured(cluster: Cluster) -> list[str]:
    """The cluster's families, the primary first."""
    return list(dict.fromkeys([ask.IPV4 if c.version == 4 else ask.IPV6 for c in cluster.service_cidrs]))


def settle(spec: JSON, old: JSON | None, cluster: Cluster) -> list[Cause]:
    if not ask.needs_cluster_ip(spec) or (old is not None and _stays_as_it_is(spec, old)):
        return []
    headless_alone = spec.get("clusterIP") == ask.NONE and not spec.get("selector")
    if not spec.get("ipFamilyPolicy"):
        before = (old or {}).get("ipFamilyPolicy")
        spec["ipFamilyPolicy"] = before or (REQUIRE if headless_alone else SINGLE)
    known = configured(cluster)
    causes = _narrow(spec, old) + _check_policy(spec) + _infer(spec, known)
    if causes:
        return causes
    if headless_alone:
        # The one Service that may have families the cluster hasn't: its endpoints are written by hand.
        _widen(spec, known[:1], [ask.IPV4, ask.IPV6])
        return []
    causes = _check_cluster(spec, known)
    if not causes:
        _widen(spec, known[:1], known)
    return causes


def _stays_as_it_is(spec: JSON, old: JSON) -> bool:
    """A PreferDualStack Service never follows the cluster by itself, only when its own fields change."""
    return (
        spec.get("ipFamilyPolicy") == PREFER
        and old.get("ipFamilyPolicy") in (None, PREFER)
        and ask.type_of(old) == ask.type_of(spec)
        and ask.cluster_ips(old) == ask.cluster_ips(spec)
        and ask.families(old) == ask.families(spec)
    )


def _narrow(spec: JSON, old: JSON | None) -> list[Cause]:
    """SingleStack on an update lets go of the second; fewer without saying SingleStack is a mistake."""
    if old is None:
        return []
    causes: list[Cause] = []
    for name, values, what in (
        ("clusterIPs", ask.cluster_ips, "secondary cluster IP"),
        ("ipFamilies", ask.families, "secondary IP family"),
    ):
        now, before = values(spec), values(old)
        if spec["ipFamilyPolicy"] == SINGLE:
            if now == before and len(now) > 1:
                spec[name] = now[:1]
        elif now and len(now) < len(before):
            causes.append(invalid(_POLICY, spec["ipFamilyPolicy"], f"must be 'SingleStack' to release the {what}"))
    return causes


def _check_policy(spec: JSON) -> list[Cause]:
    if spec["ipFamilyPolicy"] != SINGLE:
        return []
    why = "must be 'RequireDualStack' or 'PreferDualStack' when multiple {} are specified"
    return [
        invalid(_POLICY, SINGLE, why.format(what))
        for values, what in ((ask.cluster_ips(spec), "cluster IPs"), (ask.families(spec), "IP families"))
        if len(values) == 2
    ]


def _infer(spec: JSON, known: list[str]) -> list[Cause]:
    """The families of addresses given without them."""
    causes: list[Cause] = []
    found = ask.families(spec)
    for index, address in enumerate(ask.cluster_ips(spec)):
        if address == ask.NONE:
            break
        family = ask.family_of(address)
        if index < len(found):
            continue
        if family in known:
            found.append(family)
        else:
            why = f"{family} is not configured on this cluster"
            causes.append(invalid(f"spec.clusterIPs[{index}]", ask.cluster_ips(spec), why))
    if found:
        spec["ipFamilies"] = found
    return causes


def _check_cluster(spec: JSON, known: list[str]) -> list[Cause]:
    causes: list[Cause] = []
    if spec["ipFamilyPolicy"] == REQUIRE and len(known) < 2:
        causes.append(invalid(_POLICY, REQUIRE, "this cluster is not configured for dual-stack services"))
    causes += [
        invalid(f"spec.ipFamilies[{index}]", family, "not configured on this cluster")
        for index, family in enumerate(ask.families(spec))
        if family not in known
    ]
    return causes


def _widen(spec: JSON, primary: list[str], offered: list[str]) -> None:
    """At least one family; a second where the policy wants one and it is offered."""
    found = ask.families(spec) or primary
    if spec["ipFamilyPolicy"] != SINGLE and len(found) == 1:
        found = found + [f for f in offered if f not in found]
    spec["ipFamilies"] = found
