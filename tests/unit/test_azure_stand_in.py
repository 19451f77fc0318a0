"""The stand-in for Azure refuses what Azure refuses, as the real SDK sees it."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

from kubesvc.loadbalancer.providers.azure.client import Client, CloudError, Rejected, Stale
from support import azure as azures
from support.azure import GROUP, LOCATION, NETWORK, Azure

LB = f"{NETWORK}/loadBalancers/lb"
RULE = {
    "protocol": "Tcp",
    "frontendPort": 80,
    "backendPort": 80,
    "enableFloatingIP": True,
    "frontendIPConfiguration": {"id": f"{LB}/frontendIPConfigurations/f"},
    "backendAddressPool": {"id": f"{LB}/backendAddressPools/p"},
}
GOOD: dict[str, Any] = {
    "location": LOCATION,
    "sku": {"name": "Standard"},
    "properties": {
        "frontendIPConfigurations": [
            {"name": "f", "properties": {"publicIPAddress": {"id": f"{NETWORK}/publicIPAddresses/mine"}}}
        ],
        "backendAddressPools": [{"name": "p", "properties": {}}],
        "probes": [{"name": "q", "properties": {"protocol": "Tcp", "port": 1, "intervalInSeconds": 5}}],
        "loadBalancingRules": [{"name": "r", "properties": RULE}],
    },
}


@pytest.fixture
async def cloud() -> AsyncIterator[tuple[Azure, Client]]:
    async with azures.azure() as (service, config):
        service.public_ip("mine", "203.0.113.77")
        client = azures.client(config)
        yield service, client
        client.close()


async def test_it_keeps_what_it_is_given_and_guards_it_by_etag(cloud: tuple[Azure, Client]) -> None:
    service, client = cloud
    made = await client.put_balancer("lb", GOOD, "")
    assert made["properties"]["provisioningState"] == "Succeeded"
    assert await client.get_balancer("lb") == made
    with pytest.raises(Stale):
        await client.put_balancer("lb", GOOD, "")  # it exists
    with pytest.raises(Stale):
        await client.put_balancer("lb", GOOD, "W/old")
    with pytest.raises(Rejected, match="PublicIPAddressCannotBeDeleted"):
        await client.delete_public_ip(GROUP, "mine")
    await client.delete_balancer("lb", made["etag"])
    await client.delete_public_ip(GROUP, "mine")
    assert await client.get_balancer("lb") is None
    assert service.names("publicIPAddresses") == []


class Nobody:
    """What azure-identity does where it finds no credentials."""

    def get_token(self, *scopes: str, **more: Any) -> AccessToken:
        raise ClientAuthenticationError("failed to retrieve a token from the included credentials")


async def test_without_credentials_the_remedy_is_said() -> None:
    async with azures.azure() as (_, config):
        client = Client(config, Nobody())
        with pytest.raises(CloudError, match="no credentials for Azure: give this process a managed"):
            await client.get_balancer("lb")
        client.close()


def spoilt(kind: str, **changes: Any) -> dict[str, Any]:
    """GOOD, but for the first of its things of this kind."""
    document = copy.deepcopy(GOOD)
    document["properties"][kind][0]["properties"] |= changes
    return document


def doubled() -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    document["properties"]["loadBalancingRules"].append({"name": "r2", "properties": RULE})
    return document


def misnamed() -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    document["properties"]["probes"][0]["name"] = "-"
    return document


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (
            spoilt("frontendIPConfigurations", publicIPAddress={"id": f"{NETWORK}/publicIPAddresses/no"}),
            "InvalidResource",
        ),
        (spoilt("loadBalancingRules", probe={"id": f"{LB}/probes/no"}), "InvalidResourceReference"),
        (spoilt("loadBalancingRules", idleTimeoutInMinutes=31), "LoadBalancingRuleInvalid"),
        (spoilt("probes", requestPath="/"), "InvalidRequestPath"),
        (spoilt("probes", intervalInSeconds=4), "InvalidProbeInterval"),
        (doubled(), "RulesUseSameFrontendPortProtocolAndIP"),
        (misnamed(), "InvalidResourceName"),
        ({"properties": {}}, "LocationRequired"),
    ],
)
async def test_it_refuses_what_azure_refuses(cloud: tuple[Azure, Client], document: dict[str, Any], code: str) -> None:
    service, client = cloud
    with pytest.raises(Rejected, match=code):
        await client.put_balancer("lb", document, "")
    assert service.names("loadBalancers") == []
