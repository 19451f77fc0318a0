"""core/v1 Pod as the rooms read it.

Only fields that some room reads are named; the API server keeps every field in the JSON tree. Quantities and
int-or-string values stay as on the wire (`int | str`).
"""

from __future__ import annotations

import msgspec

from kubesvc.api.meta import JSON, Condition, LabelSelector, LabelSelectorRequirement, Object, Struct


class ObjectFieldSelector(Struct, frozen=True):
    field_path: str
    api_version: str = "v1"


class KeySelector(Struct, frozen=True):
    name: str = ""
    key: str = ""
    optional: bool = False


class ResourceFieldSelector(Struct, frozen=True):
    """A request or limit of a container: limits.cpu, requests.memory, …, counted in `divisor`."""

    resource: str
    container_name: str = ""
    divisor: int | float | str = "1"


class EnvVarSource(Struct, frozen=True):
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None


class EnvVar(Struct, frozen=True):
    name: str
    value: str = ""
    value_from: EnvVarSource | None = None


class LocalReference(Struct, frozen=True):
    name: str = ""
    optional: bool = False


class EnvFromSource(Struct, frozen=True):
    prefix: str = ""
    config_map_ref: LocalReference | None = None
    secret_ref: LocalReference | None = None


class ContainerPort(Struct, frozen=True):
    container_port: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0
    host_ip: str = msgspec.field(default="", name="hostIP")


class VolumeMount(Struct, frozen=True):
    name: str
    mount_path: str
    sub_path: str = ""
    sub_path_expr: str = ""
    read_only: bool = False
    recursive_read_only: str | None = None
    mount_propagation: str | None = None


class HTTPHeader(Struct, frozen=True):
    name: str
    value: str


class HTTPGetAction(Struct, frozen=True):
    port: int | str
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    http_headers: list[HTTPHeader] = []


class TCPSocketAction(Struct, frozen=True):
    port: int | str
    host: str = ""


class ExecAction(Struct, frozen=True):
    command: list[str] = []


class GRPCAction(Struct, frozen=True):
    port: int
    service: str | None = None


class SleepAction(Struct, frozen=True):
    seconds: int = 0


class Probe(Struct, frozen=True):
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    exec: ExecAction | None = None
    grpc: GRPCAction | None = None
    termination_grace_period_seconds: int | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3


class LifecycleHandler(Struct, frozen=True):
    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Struct, frozen=True):
    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None


class Capabilities(Struct, frozen=True):
    add: list[str] = []
    drop: list[str] = []


class Sysctl(Struct, frozen=True):
    name: str = ""
    value: str = ""


class SeccompProfile(Struct, frozen=True):
    type: str = ""
    localhost_profile: str | None = None


class SecurityContext(Struct, frozen=True):
    """Of a pod or of a container: each has fields that the other hasn't."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    supplemental_groups: list[int] = []
    fs_group: int | None = None
    sysctls: list[Sysctl] = []
    read_only_root_filesystem: bool = False
    allow_privilege_escalation: bool | None = None
    privileged: bool = False
    capabilities: Capabilities | None = None
    seccomp_profile: SeccompProfile | None = None


class ResourceRequirements(Struct, frozen=True):
    """resource -> quantity, as written."""

    limits: dict[str, int | float | str] = {}
    requests: dict[str, int | float | str] = {}


class Container(Struct, frozen=True):
    """Also an ephemeral one."""

    name: str = ""
    image: str = ""
    image_pull_policy: str = ""
    command: list[str] = []
    args: list[str] = []
    working_dir: str = ""
    env: list[EnvVar] = []
    env_from: list[EnvFromSource] = []
    ports: list[ContainerPort] = []
    volume_mounts: list[VolumeMount] = []
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    restart_policy: str | None = None  # Always: an init container that stays, a sidecar
    security_context: SecurityContext | None = None
    resources: ResourceRequirements = ResourceRequirements()
    target_container_name: str = ""  # of an ephemeral one
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


class KeyToPath(Struct, frozen=True):
    key: str
    path: str
    mode: int | None = None


class ConfigMapVolume(Struct, frozen=True):
    name: str = ""
    items: list[KeyToPath] = []
    default_mode: int = 0o644
    optional: bool = False


class SecretVolume(Struct, frozen=True):
    secret_name: str = ""
    items: list[KeyToPath] = []
    default_mode: int = 0o644
    optional: bool = False


class DownwardAPIFile(Struct, frozen=True):
    path: str
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    mode: int | None = None


class DownwardAPIVolume(Struct, frozen=True):
    items: list[DownwardAPIFile] = []
    default_mode: int = 0o644


class SecretProjection(Struct, frozen=True):
    name: str = ""
    items: list[KeyToPath] = []
    optional: bool = False


class ServiceAccountTokenProjection(Struct, frozen=True):
    path: str
    audience: str = ""
    expiration_seconds: int = 3600


class VolumeProjection(Struct, frozen=True):
    service_account_token: ServiceAccountTokenProjection | None = None
    config_map: ConfigMapVolume | None = None
    secret: SecretProjection | None = None
    downward_api: DownwardAPIVolume | None = msgspec.field(default=None, name="downwardAPI")


class ProjectedVolume(Struct, frozen=True):
    sources: list[VolumeProjection] = []
    default_mode: int = 0o644


class HostPathVolume(Struct, frozen=True):
    path: str
    type: str = ""


class EmptyDirVolume(Struct, frozen=True):
    medium: str = ""
    size_limit: int | str | None = None


class ImageVolume(Struct, frozen=True):
    reference: str = ""
    pull_policy: str = ""


class PersistentVolumeClaimVolume(Struct, frozen=True):
    claim_name: str
    read_only: bool = False


class EphemeralVolume(Struct, frozen=True):
    volume_claim_template: JSON = {}


class Volume(Struct, frozen=True):
    name: str
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    empty_dir: EmptyDirVolume | None = None
    downward_api: DownwardAPIVolume | None = msgspec.field(default=None, name="downwardAPI")
    projected: ProjectedVolume | None = None
    host_path: HostPathVolume | None = None
    persistent_volume_claim: PersistentVolumeClaimVolume | None = None
    image: ImageVolume | None = None
    ephemeral: EphemeralVolume | None = None


class Toleration(Struct, frozen=True):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class HostAlias(Struct, frozen=True):
    ip: str
    hostnames: list[str] = []


class PodDNSConfigOption(Struct, frozen=True):
    name: str
    value: str | None = None


class PodDNSConfig(Struct, frozen=True):
    nameservers: list[str] = []
    searches: list[str] = []
    options: list[PodDNSConfigOption] = []


class PodReadinessGate(Struct, frozen=True):
    condition_type: str


class PodSchedulingGate(Struct, frozen=True):
    name: str = ""


class NodeSelectorTerm(Struct, frozen=True):
    match_expressions: list[LabelSelectorRequirement] = []  # also Gt and Lt
    match_fields: list[LabelSelectorRequirement] = []


class NodeSelector(Struct, frozen=True):
    node_selector_terms: list[NodeSelectorTerm] = []


class PreferredSchedulingTerm(Struct, frozen=True):
    weight: int = 0
    preference: NodeSelectorTerm = NodeSelectorTerm()


class NodeAffinity(Struct, frozen=True):
    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: list[PreferredSchedulingTerm] = []


class PodAffinityTerm(Struct, frozen=True):
    topology_key: str = ""
    label_selector: LabelSelector | None = None
    namespaces: list[str] = []
    namespace_selector: LabelSelector | None = None
    match_label_keys: list[str] = []
    mismatch_label_keys: list[str] = []


class WeightedPodAffinityTerm(Struct, frozen=True):
    weight: int = 0
    pod_affinity_term: PodAffinityTerm = PodAffinityTerm()


class PodAffinity(Struct, frozen=True):
    """Also podAntiAffinity."""

    required_during_scheduling_ignored_during_execution: list[PodAffinityTerm] = []
    preferred_during_scheduling_ignored_during_execution: list[WeightedPodAffinityTerm] = []


class Affinity(Struct, frozen=True):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class TopologySpreadConstraint(Struct, frozen=True):
    max_skew: int = 1
    topology_key: str = ""
    when_unsatisfiable: str = "DoNotSchedule"
    label_selector: LabelSelector | None = None
    min_domains: int | None = None
    node_affinity_policy: str = "Honor"
    node_taints_policy: str = "Ignore"
    match_label_keys: list[str] = []


class PodSpec(Struct, frozen=True):
    containers: list[Container] = []
    init_containers: list[Container] = []
    ephemeral_containers: list[Container] = []
    affinity: Affinity | None = None
    topology_spread_constraints: list[TopologySpreadConstraint] = []
    volumes: list[Volume] = []
    node_name: str = ""
    node_selector: dict[str, str] = {}
    hostname: str = ""
    subdomain: str = ""
    set_hostname_as_fqdn: bool = msgspec.field(default=False, name="setHostnameAsFQDN")
    host_network: bool = False
    host_pid: bool = msgspec.field(default=False, name="hostPID")
    host_ipc: bool = msgspec.field(default=False, name="hostIPC")
    share_process_namespace: bool = False
    active_deadline_seconds: int | None = None
    host_aliases: list[HostAlias] = []
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    dns_policy: str = "ClusterFirst"
    dns_config: PodDNSConfig | None = None
    enable_service_links: bool = True
    readiness_gates: list[PodReadinessGate] = []
    scheduling_gates: list[PodSchedulingGate] = []
    image_pull_secrets: list[LocalReference] = []
    tolerations: list[Toleration] = []
    service_account_name: str = ""
    scheduler_name: str = ""
    security_context: SecurityContext | None = None

    @property
    def every_container(self) -> tuple[Container, ...]:
        return (*self.init_containers, *self.containers, *self.ephemeral_containers)


class ContainerStateRunning(Struct, frozen=True):
    started_at: str | None = None


class ContainerStateWaiting(Struct, frozen=True):
    reason: str = ""
    message: str = ""


class ContainerStateTerminated(Struct, frozen=True):
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    container_id: str = msgspec.field(default="", name="containerID")


class ContainerState(Struct, frozen=True):
    running: ContainerStateRunning | None = None
    waiting: ContainerStateWaiting | None = None
    terminated: ContainerStateTerminated | None = None


class ContainerStatus(Struct, frozen=True):
    name: str
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    image: str = ""
    image_id: str = msgspec.field(default="", name="imageID")
    container_id: str = msgspec.field(default="", name="containerID")
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodIP(Struct, frozen=True):
    ip: str


class PodStatus(Struct, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: list[PodIP] = msgspec.field(default_factory=list, name="podIPs")
    host_ip: str = msgspec.field(default="", name="hostIP")
    start_time: str | None = None
    conditions: list[Condition] = []
    container_statuses: list[ContainerStatus] = []
    init_container_statuses: list[ContainerStatus] = []
    ephemeral_container_statuses: list[ContainerStatus] = []


class Pod(Object, frozen=True):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()
