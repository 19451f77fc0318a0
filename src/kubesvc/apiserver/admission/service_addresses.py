"""Why a Service's addresses and families can't be: their spelling, their pairing, and what may not change.

Source: pkg/apis/core/validation/validation.go, ValidateServiceClusterIPsRelatedFields and
validateUpgradeDowngrade*; KEP-563 (dual stack).
"""

from __future__ import annotations

from collections.abc import Iterator

from kubesvc.api import names
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission import service_spec as ask
from kubesvc.apiserver.admission.causes import duplicate, invalid, not_supported, required
from kubesvc.apiserver.admission.context import Cluster
from kubesvc.apiserver.admission.endpointslice import not_special
from kubesvc.apiserver.admission.service_families import PREFER, REQUIRE, SINGLE, settle

_FAMILIES = (ask.IPV4, ask.IPV6)
_POLICIES = (PREFER, REQUIRE, SINGLE)
_LINKED = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")  # an empty one is none
_ONCE = "may not change once set"


def fit_together(spec: JSON, before: JSON | None) -> list[Cause]:
    """Why clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy can't be what the client means. Nothing is inferred from
    fields that don't fit together, so this is asked first, and what it says is all that is said."""
    if not ask.needs_cluster_ip(spec) or not any(map(spec.get, _LINKED)):
        return []
    return [*_paired(spec), *_family_fields(spec), *_cluster_ips(spec, set(ask.cluster_ips(before or {})))]


def unsettled(spec: JSON, before: JSON | None, cluster: Cluster) -> list[Cause]:
    """Why no addresses can be allocated; where there is a reason, upstream's allocator comes no further."""
    # `settle` sets fields, and changes none in place.
    return fit_together(spec, before) or settle(dict(spec), before, cluster)


def validate(spec: JSON, before: JSON | None) -> list[Cause]:
    causes = list(_external_ips(spec, set((before or {}).get("externalIPs") or ())))
    if before is not None and ask.needs_cluster_ip(spec) and ask.needs_cluster_ip(before):
        causes += _addresses_stay(spec, before)
        causes += _families_stay(spec, before)
    return causes


def _paired(spec: JSON) -> Iterator[Cause]:
    address, addresses = spec.get("clusterIP") or "", ask.cluster_ips(spec)
    if address and not addresses:
        yield required("spec.clusterIPs")
    elif address and addresses[0] != address:
        yield invalid("spec.clusterIPs", addresses, "first value must match `clusterIP`")
    elif addresses and not address:
        yield invalid("spec.clusterIPs", addresses, "must be empty when `clusterIP` is not specified")


def _family_fields(spec: JSON) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, family in enumerate(ask.families(spec)):
        path = f"spec.ipFamilies[{index}]"
        if family not in _FAMILIES:
            yield not_supported(path, family, _FAMILIES)
        if family in seen:
            yield duplicate(path, family)
        seen.add(family)
    policy = spec.get("ipFamilyPolicy")
    if policy is not None and policy not in _POLICIES:
        yield not_supported("spec.ipFamilyPolicy", policy, _POLICIES)


def _cluster_ips(spec: JSON, stored: set[str]) -> list[Cause]:
    """`stored` addresses were accepted once, in whatever spelling."""
    path, addresses = "spec.clusterIPs", ask.cluster_ips(spec)
    if ask.NONE in addresses and len(addresses) > 1:
        return [invalid(path, addresses, "'None' must be the first and only value")]
    causes = [
        invalid(f"{path}[{index}]", address, why)
        for index, address in enumerate(addresses)
        if address != ask.NONE and address not in stored
        for why in names.address(address)
    ]
    if causes:
        return causes
    if len(addresses) > 2:
        causes.append(invalid(path, addresses, "may only hold up to 2 values"))
    found = [ask.family_of(a) for a in addresses]
    if len(found) > 1 and len(set(found)) == 1:
        causes.append(invalid(path, addresses, "may specify no more than one IP for each IP family"))
    if not ask.is_headless(spec):
        causes += [
            invalid(f"{path}[{index}]", address, f"expected an {family} value as indicated by `ipFamilies[{index}]`")
            for index, (address, family) in enumerate(zip(addresses, ask.families(spec), strict=False))
            if family in _FAMILIES and ask.family_of(address) != family
        ]
    return causes


def _external_ips(spec: JSON, stored: set[str]) -> Iterator[Cause]:
    for index, text in enumerate(spec.get("externalIPs") or ()):
        path = f"spec.externalIPs[{index}]"
        problems = [] if text in stored else names.address(text)
        yield from (invalid(path, text, why) for why in problems)
        if not problems:
            yield from not_special(text, path)


def adds_external_ips(new: JSON, old: JSON | None) -> bool:
    """Whether `new` has externalIPs that `old` hasn't: whoever may do that can take any address's traffic."""
    before = ask.spec_of(old).get("externalIPs") if old is not None else None
    return not set(ask.spec_of(new).get("externalIPs") or ()) <= set(before or ())


def _addresses_stay(spec: JSON, before: JSON) -> Iterator[Cause]:
    now, then = ask.cluster_ips(spec), ask.cluster_ips(before)
    if not then or (ask.is_headless(spec) and ask.is_headless(before)):
        return
    if not now:
        yield invalid("spec.clusterIPs[0]", now, "primary clusterIP can not be unset")
        return
    compared = len(then) if len(now) == len(then) else 1
    for index in range(compared):
        if now[index] != then[index]:
            yield invalid(f"spec.clusterIPs[{index}]", now, _ONCE)
    if len(now) == 1 < len(then) and spec.get("ipFamilyPolicy") != SINGLE:
        why = "must be set to 'SingleStack' when releasing the secondary clusterIP"
        yield invalid("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), why)


def _families_stay(spec: JSON, before: JSON) -> Iterator[Cause]:
    """The primary family stays. A headless Service holds no address, so it may change its mind."""
    now, then = ask.families(spec), ask.families(before)
    if not then or not now or ask.is_headless(spec) or ask.is_headless(before):
        return
    compared = len(then) if len(now) == len(then) else 1
    if now[:compared] != then[:compared]:
        yield invalid("spec.ipFamilies[0]", now, _ONCE)
    if len(now) == 1 < len(then) and spec.get("ipFamilyPolicy") != SINGLE:
        why = "must be set to 'SingleStack' when releasing the secondary ipFamily"
        yield invalid("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), why)
