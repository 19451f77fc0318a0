"""Public IPs: which one a Service is to have, what it must look like, and which are nobody's any more. Pure.

Those that we make carry tags that say for which cluster and Service; whatever has no such tag is the user's, and is
neither changed nor deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.loadbalancer.providers.azure.balancer import CLUSTER_TAG, Frontend, public_frontend
from kubesvc.loadbalancer.providers.azure.config import AzureConfig, group_of
from kubesvc.loadbalancer.providers.azure.merged import covers, prefix
from kubesvc.loadbalancer.providers.azure.wish import Wish

OWNER_TAG = "kubesvc-service-uid"
SERVICE_TAG = "k8s-azure-service"  # upstream's, for people


class PublicIP(msgspec.Struct, frozen=True):
    """`document`: as it is to be written, None: there is nothing to write. `etag`: of what it replaces."""

    group: str
    name: str
    there: JSON | None
    document: JSON | None

    @property
    def etag(self) -> str:
        return str((self.there or {}).get("etag", ""))


def choose(wish: Wish, family: str, listed: Iterable[JSON], config: AzureConfig, cluster: str) -> PublicIP:
    """The public IP for `family`. Raises Refused when one that is asked for can't be had."""
    group = wish.group or config.resource_group
    here = [ip for ip in listed if group_of(ip["id"]).lower() == group.lower()]
    name, address = wish.pip_names.get(family), wish.addresses.get(family)
    if name or address:
        found = next((ip for ip in here if _is(ip, name, address)), None)
        if found is None:
            what = f"named {name}" if name else f"with the address {address}"
            raise wish.refused(
                "PublicIPNotFound", f"there is no public IP {what} in the resource group {group}; create it first"
            )
        _check(wish, family, found, config, cluster)
        return PublicIP(group, found["name"], found, None)
    mark = "|".join([wish.prefixes.get(family, "").lower(), *(f"{k}={v}" for k, v in sorted(wish.ip_tags.items()))])
    name = f"{prefix(wish.uid)}{family.lower()}" + ("" if mark == "" else f"-{sha256(mark.encode()).hexdigest()[:8]}")
    there = next((ip for ip in here if ip["name"].lower() == name.lower()), None)
    wanted = _wanted(wish, family, there, config, cluster)
    if there is not None and there["properties"].get("provisioningState") == "Succeeded" and _fits(there, wanted):
        return PublicIP(group, name, there, None)
    return PublicIP(group, name, there, wanted)


def frontend_of(public_ip: JSON, family: str, cluster: str) -> Frontend:
    tags = public_ip.get("tags") or {}
    owner = tags.get(OWNER_TAG, "") if tags.get(CLUSTER_TAG) == cluster else ""
    return public_frontend(public_ip["id"], owner, family)


def garbage(
    listed: Iterable[JSON], cluster: str, wanted: Mapping[str, Collection[str]], living: Collection[str], used: set[str]
) -> list[JSON]:
    """Those made for Services that are gone, or that want others, and in no frontend any more. `wanted`: uid -> names,
    for those of which it is known; `used`: ids in lower case."""
    found = []
    for ip in listed:
        tags = ip.get("tags") or {}
        owner = tags.get(OWNER_TAG)
        if tags.get(CLUSTER_TAG) != cluster or not owner or ip["id"].lower() in used:
            continue
        if owner not in living or ip["name"] not in wanted.get(owner, (ip["name"],)):
            found.append(ip)
    return found


def _is(ip: JSON, name: str | None, address: str | None) -> bool:
    if name:
        return bool(ip["name"].lower() == name.lower())
    return bool(ip["properties"].get("ipAddress") == address)


def _check(wish: Wish, family: str, ip: JSON, config: AzureConfig, cluster: str) -> None:
    properties = ip["properties"]
    holder = (properties.get("ipConfiguration") or {}).get("id", "")
    version = properties.get("publicIPAddressVersion", "IPv4")
    wrong = ""
    if version != family:
        wrong = f"it is {version}, but {family} is needed"
    elif (ip.get("sku") or {}).get("name") not in ("Standard", "StandardV2"):
        wrong = "its SKU isn't Standard"
    elif ip.get("location", "").replace(" ", "").lower() != config.location.replace(" ", "").lower():
        wrong = f"it is in {ip.get('location')}, not in {config.location}"
    elif holder and not holder.lower().startswith(f"{config.balancer_id(cluster)}/".lower()):
        wrong = f"it is in use by {holder}"
    if wrong:
        raise wish.refused("PublicIPUnusable", f"the public IP {ip['name']} can't be used: {wrong}; name another")


def _wanted(wish: Wish, family: str, there: JSON | None, config: AzureConfig, cluster: str) -> JSON:
    """The whole document: a PUT replaces it, so what was there comes along."""
    before = (there or {}).get("properties", {})
    properties: JSON = {
        **before,
        "publicIPAllocationMethod": "Static",
        "publicIPAddressVersion": family,
    }
    if wish.prefixes.get(family):
        properties["publicIPPrefix"] = {"id": wish.prefixes[family]}
    if wish.ip_tags:
        properties["ipTags"] = [{"ipTagType": kind, "tag": tag} for kind, tag in sorted(wish.ip_tags.items())]
    if wish.dns_label:
        properties["dnsSettings"] = {"domainNameLabel": wish.dns_label}
    elif wish.dns_label == "":
        properties.pop("dnsSettings", None)
    tags: Mapping[str, str] = {
        **((there or {}).get("tags") or {}),
        **wish.tags,
        CLUSTER_TAG: cluster,
        OWNER_TAG: wish.uid,
        SERVICE_TAG: wish.key,
    }
    sku = {"name": "Standard", "tier": "Regional"}
    return {"location": config.location, "sku": sku, **(there or {}), "tags": tags, "properties": properties}


def _fits(there: JSON, wanted: JSON) -> bool:
    label = "dnsSettings"
    return (label in there["properties"]) == (label in wanted["properties"]) and covers(there, wanted)
