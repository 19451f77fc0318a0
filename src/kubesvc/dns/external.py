"""What is wrong with an ExternalName, found out by asking as its clients would.

    an address        DNS has no alias for addresses: nothing is answered
    unresolved        the name doesn't exist, or has no address
    HTTP, TLS         clients send the Service's name as Host and TLS name; a server may know itself by its own alone

Servers are asked only on ports that say HTTP (by name, appProtocol, 80 or 443), with one HEAD each way. Addresses that
lead back into this machine aren't asked: an ExternalName must not become a way to try its ports.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
from cryptography import x509

from kubesvc.api.core import Service, ServicePort
from kubesvc.dns.config import SocketFactory
from kubesvc.dns.public import Finding

TRY_SECONDS = 5.0  # for one server
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Ask = Callable[[bytes], Awaitable[bytes | None]]  # wire query -> wire answer, as a client gets it


class Unknown(Exception):
    """Nobody can say at the moment: to be asked again."""


def is_elsewhere(address: Address) -> bool:
    """Does the address lead away from this machine?"""
    return not (address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast)


class Examiner:
    """`zone` is the cluster's, as text; `ask` answers as the node's server does."""

    def __init__(
        self,
        ask: Ask,
        socket_factory: SocketFactory,
        zone: str,
        *,
        probe: bool = True,
        may_ask: Callable[[Address], bool] = is_elsewhere,
    ) -> None:
        self._ask = ask
        self._socket_factory = socket_factory
        self._zone = zone
        self._probe = probe
        self._may_ask = may_ask

    async def findings(self, service: Service) -> list[Finding]:
        """What is wrong with an ExternalName Service. Raises Unknown."""
        target = service.spec.external_name.removesuffix(".").lower()
        if is_address(target):
            what = f"externalName {target} is an address, and DNS has no alias for one: nothing is answered"
            remedy = "use a Service without a selector and an EndpointSlice with this address"
            return [Finding(True, "ExternalNameIsAddress", f"{what}; {remedy}")]
        own = f"{service.name}.{service.namespace}.svc.{self._zone}"
        addresses, trouble = await self._addresses(own)
        if not addresses:
            what = f"externalName {target} {trouble}: clients of {own} are told that it has no address"
            return [Finding(True, "ExternalNameUnresolved", f"{what}; correct spec.externalName")]
        if not self._probe or f".{target}".endswith(f".{self._zone}"):
            return []
        usable = [one for one in addresses if self._may_ask(one)]
        found = [await self._refusal(port, usable[0], own, target) for port in service.spec.ports if usable]
        return [one for one in found if one is not None]

    async def _addresses(self, name: str) -> tuple[list[Address], str]:
        """The addresses a client finds, and in words why there are none. Raises Unknown."""
        found: list[Address] = []
        rcode = dns.rcode.NOERROR
        for kind in ("A", "AAAA"):
            answer = await self._ask(dns.message.make_query(name, kind).to_wire())
            reply = dns.message.from_wire(answer or b"", ignore_trailing=True) if answer else None
            if reply is None or reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                raise Unknown(name)
            rcode = reply.rcode()
            wanted = dns.rdatatype.from_text(kind)
            found += [
                ipaddress.ip_address(str(one)) for rrset in reply.answer if rrset.rdtype == wanted for one in rrset
            ]
        return found, "does not exist" if rcode == dns.rcode.NXDOMAIN else "has no address (A or AAAA)"

    async def _refusal(self, port: ServicePort, address: Address, own: str, target: str) -> Finding | None:
        """What the server at one port says to the Service's name; None where it is content, or isn't reached."""
        protocol = speaks(port)
        if not protocol:
            return None
        try:
            async with asyncio.timeout(TRY_SECONDS):
                if protocol == "https":
                    return await self._tls_refusal(address, port.port, own, target)
                return await self._host_refusal(address, port.port, own, target)
        except (OSError, EOFError, TimeoutError, ValueError):
            return None  # unreachable from here, or not HTTP: that says nothing about names

    async def _host_refusal(self, address: Address, port: int, own: str, target: str) -> Finding | None:
        theirs = await self._status(address, port, target)
        mine = await self._status(address, port, own)
        if not (theirs < 400 <= mine):
            return None
        what = f"{target} port {port} answers HTTP {mine} to the Host {own}, and {theirs} to its own name"
        return Finding(True, "ExternalNameRefusesHost", f"{what}; have clients send Host: {target}")

    async def _status(self, address: Address, port: int, host: str) -> int:
        """The status code of HEAD /. Raises OSError, EOFError, ValueError."""
        reader, writer = await self._connect(address, port)
        try:
            writer.write(
                f"HEAD / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kubesvc\r\nConnection: close\r\n\r\n".encode()
            )
            words = (await reader.readline()).split()
            if len(words) < 2 or not words[0].startswith(b"HTTP/"):
                raise ValueError("not HTTP")
            return int(words[1])
        finally:
            writer.close()

    async def _tls_refusal(self, address: Address, port: int, own: str, target: str) -> Finding | None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # whether it is to be trusted is for clients to judge; the names count here
        remedy = f"have clients use the TLS name {target}"
        try:
            _, writer = await self._connect(address, port, context, own)
        except ssl.SSLError as error:
            what = f"{target} port {port} refuses the TLS name {own} ({error.reason or error})"
            return Finding(True, "ExternalNameRefusesTLSName", f"{what}; {remedy}")
        try:
            encoded = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        finally:
            writer.close()
        names = list(_names(x509.load_der_x509_certificate(encoded)))
        labels = own.split(".")
        if any(covers(name, ".".join(labels[:length])) for name in names for length in (1, 2, 3, len(labels))):
            return None
        shown = ", ".join(names[:3]) or "no name"
        what = f"the certificate of {target} port {port} is for {shown}, not for {own}: clients that verify it refuse"
        return Finding(True, "ExternalNameRefusesTLSName", f"{what}; {remedy}")

    async def _connect(
        self, address: Address, port: int, tls: ssl.SSLContext | None = None, name: str | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        tcp = self._socket_factory(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            tcp.setblocking(False)
            await asyncio.get_running_loop().sock_connect(tcp, (str(address), port))
            return await asyncio.open_connection(sock=tcp, ssl=tls, server_hostname=name)
        except BaseException:
            tcp.close()
            raise


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def speaks(port: ServicePort) -> str:
    """ "http", "https", or "" for a port that says neither."""
    said = (port.app_protocol or port.name or "").lower().rpartition("/")[2]
    if said.startswith("https") or (not said.startswith("http") and port.port == 443):
        return "https"
    return "http" if said.startswith("http") or port.port == 80 else ""


def covers(pattern: str, name: str) -> bool:
    """Is a certificate for `pattern` one for `name`? A * stands for one label."""
    if pattern.startswith("*."):
        return "." in name and name.partition(".")[2] == pattern[2:].lower()
    return pattern.lower() == name


def _names(certificate: x509.Certificate) -> Iterator[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return
    yield from found.value.get_values_for_type(x509.DNSName)
