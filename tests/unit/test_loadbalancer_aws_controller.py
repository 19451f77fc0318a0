"""The controller with provider aws against an API server in this process: what a Service shows from first to last."""

from __future__ import annotations

import asyncio

from kubesvc.api.core import Service
from kubesvc.api.registry import EVENT, NODE, SERVICE
from kubesvc.loadbalancer import main
from kubesvc.loadbalancer.config import LoadBalancerConfig
from kubesvc.loadbalancer.plan import ready_condition
from kubesvc.loadbalancer.providers.aws.annotations import PREFIX
from support.apiserver import local_session
from support.aws import cloud
from support.watching import Event, following


async def test_a_service_from_its_making_to_its_end() -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    with cloud(served=False) as aws:
        config = LoadBalancerConfig(
            default_provider="aws", cluster_name="test", aws=aws.config, first_retry=0.01, last_retry=0.05
        )
        async with (
            local_session() as session,
            following(session, SERVICE, Service) as services,
            following(session, EVENT, Event) as events,
        ):
            for node in aws.nodes:
                spec = {"providerID": node.spec.provider_id}
                await session.create(NODE, {"metadata": {"name": node.name}, "spec": spec})
                await session.patch(NODE, "", node.name, {"status": ready}, subresource="status")

            def shows(reason: str) -> str:
                one = services.get("web")
                condition = ready_condition(one) if one else None
                names = "".join(i.hostname for i in one.status.load_balancer.ingress) if one else ""
                return names if condition is not None and condition.reason == reason else ""

            def told() -> set[str]:
                return {event.reason for event in events.seen if event.involved_object.name == "web"}

            running = asyncio.create_task(main.run(session, config, ("aws",)))
            try:
                ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
                whole = {"type": "LoadBalancer", "loadBalancerClass": "service.k8s.aws/nlb", "ports": ports}
                await session.create(SERVICE, {"metadata": {"name": "web", "namespace": "default"}, "spec": whole})
                first = await services.until(lambda: shows("Ensured"), "it has a load balancer", within=60)
                assert first.endswith(".elb.amazonaws.com")
                asked = {PREFIX + "scheme": "public", PREFIX + "eip-pool": "p"}
                await session.patch(SERVICE, "default", "web", {"metadata": {"annotations": asked}})
                assert await services.until(lambda: shows("InvalidAnnotation"), "it is refused", within=60) == first
                await session.patch(SERVICE, "default", "web", {"metadata": {"annotations": {PREFIX + "scheme": None}}})
                await services.until(lambda: shows("Ensured"), "it is served again", within=60)
                await events.until(lambda: "AnnotationIgnored" in told(), "what is ignored is said", within=60)
                ports[0]["port"] = 81
                await session.patch(SERVICE, "default", "web", {"spec": {"ports": ports}})
                arn = aws.balancers()[0]["LoadBalancerArn"]
                async with asyncio.timeout(60):
                    while [one["Port"] for one in aws.listeners(arn)] != [81]:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                assert shows("Ensured") == first
                await session.patch(SERVICE, "default", "web", {"spec": {"type": "ClusterIP"}})
                await events.until(lambda: "DeletedLoadBalancer" in told(), "it is deleted", within=60)
                assert aws.leftovers() == []
                await session.delete(SERVICE, "default", "web")
                await services.until(lambda: services.get("web") is None, "it is gone", within=60)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
    assert {"EnsuringLoadBalancer", "EnsuredLoadBalancer", "SyncLoadBalancerFailed", "DeletingLoadBalancer"} <= told()
