"""What `kubectl explain` says: our own words, one or two sentences a field; here about the Service kinds.

`DESCRIPTIONS` maps a type's name (as in schema.json, without the leading io.k8s.) -> its text under "" and its fields'.
Types that aren't here are served without text.
"""

from __future__ import annotations

from kubesvc.api.object_descriptions import META
from kubesvc.api.workload_descriptions import WORKLOADS

_SERVICE: dict[str, dict[str, str]] = {
    "api.core.v1.Service": {
        "": "A Service gives a moving set of pods one name, one address and even load: whoever connects to the "
        "address reaches one of the pods that are ready.",
        **META,
        "spec": "What the Service should be. Changing it changes the data plane of every node within milliseconds.",
        "status": "What has become of it; written by the cluster, never by you.",
    },
    "api.core.v1.ServiceSpec": {
        "": "What a Service should be: which pods, which ports, and from where it can be reached.",
        "type": "From where the Service can be reached. ClusterIP: from inside, at an address of its own. NodePort: "
        "also at a port of every node. LoadBalancer: also at an address outside. ExternalName: it is only an alias in "
        "DNS for another name.",
        "selector": "The labels a pod must carry to be behind this Service. Without a selector you write the "
        "EndpointSlices yourself. Not used by ExternalName.",
        "ports": "The ports the Service listens on. Each needs a name as soon as there is more than one.",
        "clusterIP": "The Service's own address. Chosen for you unless given; None makes the Service headless, "
        "so that its name in DNS gives the pods' addresses. It never changes until the Service is deleted.",
        "clusterIPs": "The Service's addresses, one for each of ipFamilies. The first is the same as clusterIP.",
        "ipFamilies": "The IP families of the Service, IPv4 and IPv6, the primary first. The primary never changes.",
        "ipFamilyPolicy": "SingleStack: one family. PreferDualStack: two where the cluster has two. "
        "RequireDualStack: two, or the Service is refused.",
        "externalIPs": "Addresses outside the cluster that somebody else routes to its nodes; the nodes answer for "
        "them as for the cluster IP. Deprecated upstream.",
        "externalName": "The DNS name that an ExternalName Service is an alias for: lower case, without a port.",
        "externalTrafficPolicy": "Where connections from outside may go. Cluster: to any pod, on any node. Local: "
        "only to pods of the node they arrived at, which keeps the client's address.",
        "internalTrafficPolicy": "Where connections from inside may go. Cluster: to any pod. Local: only to pods of "
        "the same node; without one there, they are dropped.",
        "trafficDistribution": "Which pods to prefer while there are any: PreferSameZone, PreferSameNode, or "
        "PreferClose, the older name of PreferSameZone.",
        "sessionAffinity": "None: every connection is balanced by itself. ClientIP: a client stays with its pod.",
        "sessionAffinityConfig": "How long a client stays with its pod.",
        "publishNotReadyAddresses": "Whether pods count as ready here before they are: for peers that must find each "
        "other to become ready.",
        "healthCheckNodePort": "The port at which each node tells a load balancer whether it has pods of this "
        "Service. Only with type LoadBalancer and externalTrafficPolicy Local; chosen for you unless given.",
        "loadBalancerIP": "The address you would like a load balancer to have. Deprecated: it means different things "
        "to different providers.",
        "loadBalancerClass": "Which implementation makes the load balancer, such as example.com/fast. Can't change "
        "while the type is LoadBalancer.",
        "loadBalancerSourceRanges": "The client networks that may use the load balancer, as CIDRs. Empty: all.",
        "allocateLoadBalancerNodePorts": "Whether a LoadBalancer Service gets node ports. True unless said otherwise; "
        "without them it needs an implementation that reaches pods directly.",
    },
    "api.core.v1.ServicePort": {
        "": "One port of a Service and where its connections go.",
        "name": "The port's name, a DNS label, unique within the Service. Part of its SRV record.",
        "protocol": "TCP, UDP or SCTP. TCP unless said otherwise.",
        "port": "The number clients connect to, at each of the Service's addresses.",
        "targetPort": "The pod's port: a number, or the name that the pod's containers give one. The same as port "
        "unless said otherwise.",
        "nodePort": "The port on every node, for types NodePort and LoadBalancer. Chosen for you from the node port "
        "range unless given; no two Services share one.",
        "appProtocol": "What is spoken on the port, as a hint for those who look inside: http, or a name with a "
        "prefix such as kubernetes.io/h2c.",
    },
    "api.core.v1.ServiceStatus": {
        "": "What has become of a Service.",
        "loadBalancer": "Where its load balancer answers.",
        "conditions": "What is known about it, such as LoadBalancerPortsError.",
    },
    "api.core.v1.LoadBalancerStatus": {
        "": "The state of a load balancer.",
        "ingress": "The addresses or names at which it answers. Empty until there is one.",
    },
    "api.core.v1.LoadBalancerIngress": {
        "": "One place where a load balancer answers.",
        "ip": "Its address, when it is reached by one.",
        "hostname": "Its DNS name, when it is reached by one.",
        "ipMode": "VIP: packets arrive at the nodes with this address as destination, so nodes answer for it "
        "themselves. Proxy: they arrive for the node, so the nodes leave the address alone.",
        "ports": "The ports it serves, and what went wrong with those it doesn't.",
    },
    "api.core.v1.SessionAffinityConfig": {
        "": "How clients stay with their pod.",
        "clientIP": "For sessionAffinity ClientIP.",
    },
    "api.core.v1.ClientIPConfig": {
        "": "How a client, known by its address, stays with its pod.",
        "timeoutSeconds": "Seconds without a connection after which a client may get another pod: 1 to 86400, "
        "10800 unless said otherwise.",
    },
}

_ENDPOINTS: dict[str, dict[str, str]] = {
    "api.discovery.v1.EndpointSlice": {
        "": "A part of the endpoints behind a Service. The label kubernetes.io/service-name says of which; its "
        "endpoints are the union of all its slices.",
        **META,
        "addressType": "What the addresses are: IPv4, IPv6 or FQDN. Can't change.",
        "endpoints": "The endpoints, 1000 at most.",
        "ports": "The ports of every endpoint here. No port at all means none; a port without a number means all.",
    },
    "api.discovery.v1.Endpoint": {
        "": "One place where a Service is served, as a rule a pod.",
        "addresses": "Its addresses, all of the same pod; readers use the first.",
        "conditions": "Whether it may be used.",
        "hostname": "Its own name below the Service's in DNS, when it has one.",
        "nodeName": "The node it runs on.",
        "zone": "The zone it runs in.",
        "hints": "For whom it is meant in the first place.",
        "targetRef": "The object it stands for.",
        "deprecatedTopology": "What zone and nodeName were in v1beta1.",
    },
    "api.discovery.v1.EndpointConditions": {
        "": "Whether an endpoint may be used. A condition that isn't given: ready and serving are true, terminating is "
        "false.",
        "ready": "It serves and isn't going away: new connections may go to it.",
        "serving": "It passes its readiness checks, whether it is going away or not.",
        "terminating": "It is going away.",
    },
    "api.discovery.v1.EndpointHints": {
        "": "For whom an endpoint is meant in the first place.",
        "forZones": "The zones it is meant for.",
        "forNodes": "The nodes it is meant for.",
    },
    "api.discovery.v1.ForZone": {"": "One zone.", "name": "The zone's name."},
    "api.discovery.v1.ForNode": {"": "One node.", "name": "The node's name."},
    "api.discovery.v1.EndpointPort": {
        "": "A port that every endpoint of a slice serves.",
        "name": "The Service port it belongs to, by name.",
        "protocol": "TCP, UDP or SCTP.",
        "port": "Its number. None: every port.",
        "appProtocol": "What is spoken on it.",
    },
    "api.core.v1.Endpoints": {
        "": "All endpoints of the Service of the same name, in one object. EndpointSlice has replaced it: it can hold "
        "more, and both IP families.",
        **META,
        "subsets": "The endpoints, grouped by the ports they share.",
    },
    "api.core.v1.EndpointSubset": {
        "": "Addresses that share the same ports: every address serves every port.",
        "addresses": "Those that are ready.",
        "notReadyAddresses": "Those that aren't ready.",
        "ports": "The ports.",
    },
    "api.core.v1.EndpointAddress": {
        "": "One address behind a Service.",
        "ip": "The address.",
        "hostname": "Its own name below the Service's in DNS.",
        "nodeName": "The node it is on.",
        "targetRef": "The object it stands for.",
    },
    "api.core.v1.EndpointPort": {
        "": "A port of the addresses of a subset.",
        "name": "The Service port it belongs to, by name.",
        "port": "Its number.",
        "protocol": "TCP, UDP or SCTP.",
        "appProtocol": "What is spoken on it.",
    },
}

_RANGES: dict[str, dict[str, str]] = {
    "api.networking.v1.ServiceCIDR": {
        "": "A range that cluster IPs are taken from. It can't go while a Service holds an address that no other range "
        "covers.",
        **META,
        "spec": "The range.",
        "status": "Whether it is in use.",
    },
    "api.networking.v1.ServiceCIDRSpec": {
        "": "A range of addresses.",
        "cidrs": "One CIDR, or one of each IP family. A second family may be added, nothing else can change.",
    },
    "api.networking.v1.IPAddress": {
        "": "A claim on one address: while this object exists, the address belongs to the object it names.",
        **META,
        "spec": "Whose it is.",
    },
    "api.networking.v1.IPAddressSpec": {"": "Whose address it is.", "parentRef": "The object that holds it."},
    "api.networking.v1.ParentReference": {
        "": "The object that holds an address.",
        "group": "Its API group, empty for the core group.",
        "resource": "Its resource, such as services.",
        "namespace": "Its namespace.",
        "name": "Its name.",
    },
    "apimachinery.pkg.apis.meta.v1.ObjectMeta": {
        "": "What every object has.",
        "name": "Its name, unique among its kind in its namespace. Can't change.",
        "generateName": "A prefix from which the server makes a name that is free.",
        "namespace": "The namespace it is in. Can't change.",
        "labels": "Names and values that selectors ask for.",
        "annotations": "Names and values that nothing selects by.",
        "uid": "What tells it from another object of the same name, before or after.",
        "resourceVersion": "The revision at which it last changed. Sent with an update, it makes the update fail when "
        "somebody else was faster.",
        "generation": "Counts the changes of its spec.",
        "creationTimestamp": "When it was created.",
        "deletionTimestamp": "When its deletion was asked for; it goes as soon as its finalizers are gone.",
        "deletionGracePeriodSeconds": "How long it may take to end.",
        "finalizers": "What must still be done before it can go.",
        "ownerReferences": "The objects it belongs to: it goes when they are all gone.",
        "managedFields": "Who set which field.",
    },
}

DESCRIPTIONS: dict[str, dict[str, str]] = {**_SERVICE, **_ENDPOINTS, **_RANGES, **WORKLOADS}

# (type, field) -> the values it may have
ENUMS: dict[tuple[str, str], tuple[str, ...]] = {
    ("api.core.v1.ServiceSpec", "type"): ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"),
    ("api.core.v1.ServiceSpec", "sessionAffinity"): ("ClientIP", "None"),
    ("api.core.v1.ServiceSpec", "externalTrafficPolicy"): ("Cluster", "Local"),
    ("api.core.v1.ServiceSpec", "internalTrafficPolicy"): ("Cluster", "Local"),
    ("api.core.v1.ServiceSpec", "ipFamilyPolicy"): ("PreferDualStack", "RequireDualStack", "SingleStack"),
    ("api.core.v1.ServicePort", "protocol"): ("SCTP", "TCP", "UDP"),
    ("api.core.v1.EndpointPort", "protocol"): ("SCTP", "TCP", "UDP"),
    ("api.discovery.v1.EndpointPort", "protocol"): ("SCTP", "TCP", "UDP"),
    ("api.discovery.v1.EndpointSlice", "addressType"): ("FQDN", "IPv4", "IPv6"),
}


def describe(type_name: str, field: str = "") -> str:
    """The text for a type, or for a field of it; empty where there is none."""
    return DESCRIPTIONS.get(type_name.removeprefix("io.k8s."), {}).get(field, "")


def values(type_name: str, field: str) -> tuple[str, ...]:
    """The values a field may have; empty where any will do, or nothing is known."""
    return ENUMS.get((type_name.removeprefix("io.k8s."), field), ())
