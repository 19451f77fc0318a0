"""What the azure provider is told, and the ids that follow from it. Pure."""

from __future__ import annotations

from pathlib import Path

import msgspec

AZURE_CLASS = "kubesvc.dev/azure"
PUBLIC_CLOUD = "https://management.azure.com"


class AzureConfig(msgspec.Struct, frozen=True):
    """Where the nodes are. `vnet` and `nsg`: a name in the resource group, or a whole id. Times are seconds."""

    subscription: str
    resource_group: str
    location: str
    vnet: str
    subnet: str
    """Where internal load balancers' addresses come from, unless a Service names another subnet of the VNet."""
    nsg: str
    """The network security group of the nodes' subnet or interfaces: a Standard load balancer is closed without."""
    load_balancer_class: str = AZURE_CLASS
    endpoint: str = PUBLIC_CLOUD
    ca_file: Path | None = None
    """The authority that signed the endpoint's certificate, where it isn't a public one (Azure Stack Hub)."""
    fresh: float = 30.0
    """How long what was read of Azure is believed."""
    poll: float = 2.0
    """Between two looks at a long operation, where Azure doesn't say."""
    timeout: float = 30.0
    """For one answer; a long operation may take ten minutes."""

    @property
    def vnet_id(self) -> str:
        return self._id(self.vnet, "virtualNetworks")

    @property
    def nsg_id(self) -> str:
        return self._id(self.nsg, "networkSecurityGroups")

    def balancer_id(self, name: str) -> str:
        return self._id(name, "loadBalancers")

    def subnet_id(self, name: str = "") -> str:
        return f"{self.vnet_id}/subnets/{name or self.subnet}"

    def _id(self, name: str, kind: str) -> str:
        if name.startswith("/"):
            return name
        group = f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
        return f"{group}/providers/Microsoft.Network/{kind}/{name}"


def group_of(resource_id: str) -> str:
    """The resource group in a resource id."""
    return resource_id.split("/")[4]


def name_of(resource_id: str) -> str:
    return resource_id.rsplit("/", 1)[-1]
