"""The records of public names as a zone file has them: what is served, and what is to be created elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kubesvc.api.core import Service
from kubesvc.api.labels import PUBLIC_HOSTNAME
from kubesvc.dns import public
from kubesvc.dns.public import Names
from kubesvc.dns.zones import Zones


def zone_file(services: Iterable[Service], clusters: Sequence[str], public_zones: Sequence[str]) -> Iterator[str]:
    """Lines of a zone file: records to create, those that are served here, and in comments what stands in the way."""
    names = Names(Zones(clusters, public=dict.fromkeys(public_zones, ())))
    found = [service for service in services if public.asked(service)]
    for service in found:
        names.update(service.key, service)
    create: list[str] = []
    serve: list[str] = []
    trouble: list[str] = []
    for service in found:
        whose = "/".join(service.key)
        trouble += [f"; {whose}: {one.message}" for one in names.findings(service) if one.warning]
        if service.spec.type != "LoadBalancer":
            continue
        for name in public.asked(service):
            if names.holder(name) != service.key:
                continue
            lines = public.lines(name, service)
            if not lines:
                trouble.append(f"; {whose}: {name} has no address yet: the Service's load balancer is pending")
            (serve if names.served(name) else create).extend(f"{line}  ; {whose}" for line in lines)
    for title, lines in (("create these where their domains are hosted", create), ("served by this cluster", serve)):
        if lines:
            yield f"; {title}"
            yield from sorted(lines)
    yield from trouble
    if not found:
        yield f"; no Service asks for a public name (annotation {PUBLIC_HOSTNAME})"
