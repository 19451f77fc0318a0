"""The controllers of one cluster, in one task group over one set of caches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from kubesvc.client.informer import wait_synced
from kubesvc.client.session import Session
from kubesvc.controllers.certificates.controller import CertificatesController
from kubesvc.controllers.config import ControllersConfig
from kubesvc.controllers.context import Context, Controller, make_context, utc_now
from kubesvc.controllers.cronjob.controller import CronJobController
from kubesvc.controllers.custom import CustomKindsController
from kubesvc.controllers.daemonset.controller import DaemonSetController
from kubesvc.controllers.deployment.controller import DeploymentController
from kubesvc.controllers.disruption.controller import DisruptionController
from kubesvc.controllers.endpoints.controller import EndpointsController
from kubesvc.controllers.endpointslice.controller import EndpointSliceController
from kubesvc.controllers.ephemeralvolume.controller import EphemeralVolumeController
from kubesvc.controllers.garbage.controller import GarbageController
from kubesvc.controllers.job.controller import JobController
from kubesvc.controllers.mirroring.controller import MirroringController
from kubesvc.controllers.namespace.controller import NamespaceController
from kubesvc.controllers.nodeipam.controller import NodeIpamController
from kubesvc.controllers.nodelifecycle.controller import NodeLifecycleController
from kubesvc.controllers.persistentvolume.controller import PersistentVolumeController
from kubesvc.controllers.protection.controller import ProtectionController
from kubesvc.controllers.replicaset.controller import replica_set_controller, replication_controller
from kubesvc.controllers.scheduler.controller import SchedulerController
from kubesvc.controllers.servicecidr.controller import ServiceCidrController
from kubesvc.controllers.statefulset.controller import StatefulSetController
from kubesvc.controllers.tokensecret.controller import TokenSecretController

log = logging.getLogger(__name__)

# in the order a change should reach them: what packets depend on first
CONTROLLERS: tuple[Callable[[Context], Controller], ...] = (
    EndpointSliceController,
    NodeLifecycleController,
    MirroringController,
    SchedulerController,
    NodeIpamController,
    replica_set_controller,
    DeploymentController,
    StatefulSetController,
    DaemonSetController,
    JobController,
    CronJobController,
    replication_controller,
    DisruptionController,
    EphemeralVolumeController,
    PersistentVolumeController,
    ProtectionController,
    NamespaceController,
    CertificatesController,
    TokenSecretController,
    EndpointsController,
    ServiceCidrController,
    GarbageController,
    CustomKindsController,
)


async def run(session: Session, config: ControllersConfig, now: Callable[[], datetime] = utc_now) -> None:
    """Reconcile until cancelled. Nothing is written before every cache has its first full list."""
    context = make_context(session, config, now)
    controllers = [make(context) for make in CONTROLLERS]
    async with asyncio.TaskGroup() as group:
        for informer in context.caches:
            group.create_task(informer.run(), name=f"informer of {informer.kind.resource}")
        await wait_synced(context.caches)
        log.info("controllers: %d caches synced", len(context.caches.of))
        group.create_task(context.recorder.run(), name="events")
        for controller in controllers:
            group.create_task(controller.run(), name=type(controller).__name__)
