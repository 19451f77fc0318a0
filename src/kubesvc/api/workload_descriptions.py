"""What `kubectl explain` says about what stands behind a Service: pods, their containers, and what makes them. Our own
words, one or two sentences a field; in `descriptions`' form.
"""

from __future__ import annotations

from kubesvc.api.object_descriptions import OBJECT

_REPLICAS = {
    "replicas": "How many pods there shall be. 1 unless said otherwise.",
    "selector": "The labels by which it knows its pods. They must be among the template's, and never change.",
    "template": "What each of its pods is made from.",
    "minReadySeconds": "How long a new pod must be ready before it counts as available. 0 unless said otherwise.",
    "revisionHistoryLimit": "How many old templates are kept, for `kubectl rollout undo`. 10 unless said otherwise.",
}

_APPS: dict[str, dict[str, str]] = {
    "api.apps.v1.Deployment": {
        "": "A Deployment keeps a number of equal pods running, and replaces them step by step when their template "
        "changes.",
        **OBJECT,
    },
    "api.apps.v1.DeploymentSpec": {
        "": "What a Deployment should be: how many pods, made from what, and how they are replaced.",
        **_REPLICAS,
        "strategy": "How pods of an old template make way for those of a new one.",
        "paused": "While true, a changed template waits: `kubectl rollout pause` and `resume`.",
        "progressDeadlineSeconds": "How long a rollout may stand still before it counts as failed; it goes on trying. "
        "600 unless said otherwise.",
    },
    "api.apps.v1.DeploymentStrategy": {
        "": "How a Deployment replaces its pods.",
        "type": "RollingUpdate: a few at a time, so that the Service is served all along. Recreate: all old ones end "
        "first. RollingUpdate unless said otherwise.",
        "rollingUpdate": "How many at a time, for RollingUpdate.",
    },
    "api.apps.v1.RollingUpdateDeployment": {
        "": "The bounds of a rolling update.",
        "maxSurge": "How many pods there may be beyond replicas, a number or a percentage. 25% unless said otherwise.",
        "maxUnavailable": "How many of replicas may be missing meanwhile, a number or a percentage. 25% unless said "
        "otherwise.",
    },
    "api.apps.v1.ReplicaSet": {
        "": "A ReplicaSet keeps a number of equal pods running. Deployments make them.",
        **OBJECT,
    },
    "api.apps.v1.StatefulSet": {
        "": "A StatefulSet keeps pods with names that stay, NAME-0, NAME-1, …, each with volumes of its own; with a "
        "headless Service each name is in DNS.",
        **OBJECT,
    },
    "api.apps.v1.StatefulSetSpec": {
        "": "What a StatefulSet should be.",
        **_REPLICAS,
        "serviceName": "The headless Service under which each pod has its name in DNS: POD.SERVICE.",
        "podManagementPolicy": "OrderedReady: one after the other, each once those before it are ready. Parallel: all "
        "at once.",
        "updateStrategy": "How pods get a changed template: RollingUpdate, from the last to the first, or OnDelete.",
        "volumeClaimTemplates": "Claims that each pod gets one of its own of, CLAIM-POD, and finds again when it is "
        "replaced.",
    },
    "api.apps.v1.DaemonSet": {"": "A DaemonSet keeps one pod on every node that it may be on.", **OBJECT},
    "api.apps.v1.DaemonSetSpec": {
        "": "What a DaemonSet should be.",
        **{name: text for name, text in _REPLICAS.items() if name != "replicas"},
        "updateStrategy": "How pods get a changed template: RollingUpdate, node by node, or OnDelete.",
    },
    "api.batch.v1.Job": {"": "A Job runs pods until as many as it wants have succeeded.", **OBJECT},
    "api.batch.v1.JobSpec": {
        "": "What a Job should do.",
        "template": "What its pods are made from; their restartPolicy is Never or OnFailure.",
        "completions": "How many pods shall succeed. 1 unless said otherwise.",
        "parallelism": "How many may run at once. 1 unless said otherwise.",
        "completionMode": "NonIndexed: all pods are equal. Indexed: each has a number, in JOB_COMPLETION_INDEX.",
        "backoffLimit": "How many failures there may be before the Job has failed. 6 unless said otherwise.",
        "backoffLimitPerIndex": "How many failures each index may have before it has failed, and is not tried again.",
        "maxFailedIndexes": "How many indexes may fail before the Job has failed, and the others are ended.",
        "podFailurePolicy": "What a failed pod means, by exit code or condition: the first rule that fits says it.",
        "podReplacementPolicy": "TerminatingOrFailed: a pod that is being deleted is replaced at once. Failed: when it "
        "has ended.",
        "successPolicy": "Which indexes, or how many, are enough; the others are ended then.",
        "managedBy": "Who carries the Job out, if not the controller here.",
        "activeDeadlineSeconds": "How long it may take before it has failed.",
        "ttlSecondsAfterFinished": "How long it is kept once it has ended; for ever unless said otherwise.",
        "suspend": "While true it has no pods.",
    },
    "api.batch.v1.CronJob": {"": "A CronJob makes a Job each time its schedule is due.", **OBJECT},
    "api.batch.v1.CronJobSpec": {
        "": "When Jobs are made, of what, and how many are kept.",
        "schedule": "Minute, hour, day of the month, month and day of the week, 0 or sun to 6 or sat; or @hourly, "
        "@daily, @weekly, @monthly, @yearly, or @every with a duration.",
        "timeZone": "The zone whose clocks the schedule means, such as Europe/Paris. UTC unless said otherwise.",
        "concurrencyPolicy": "When a Job is due while one still runs: Allow both, Forbid the new one until the other "
        "has ended, or Replace the old one. Allow unless said otherwise.",
        "startingDeadlineSeconds": "How late a Job may be made. However late, unless said otherwise.",
        "suspend": "While true no Jobs are made.",
        "jobTemplate": "What each of its Jobs is made from.",
        "successfulJobsHistoryLimit": "How many Jobs that succeeded are kept. 3 unless said otherwise.",
        "failedJobsHistoryLimit": "How many Jobs that failed are kept. 1 unless said otherwise.",
    },
    "api.batch.v1.CronJobStatus": {
        "": "What became of its Jobs.",
        "active": "The Jobs it made that still run.",
        "lastScheduleTime": "The last time that a Job was made for.",
        "lastSuccessfulTime": "When a Job last succeeded.",
    },
    "api.batch.v1.JobTemplateSpec": {
        "": "What Jobs are made from.",
        "metadata": "The Jobs' labels and annotations.",
        "spec": "What the Jobs should do.",
    },
}

_PODS: dict[str, dict[str, str]] = {
    "api.core.v1.Pod": {
        "": "A Pod is one or more containers on one node with one address. Services reach it by its labels.",
        **OBJECT,
    },
    "api.core.v1.PodTemplateSpec": {
        "": "What pods are made from.",
        "metadata": "The pods' labels, by which Services and their own controller know them, and annotations.",
        "spec": "What the pods should be.",
    },
    "api.core.v1.PodSpec": {
        "": "What a pod should be: its containers, and where it may run.",
        "containers": "The programs that run side by side. They share the pod's address and its volumes.",
        "initContainers": "Programs that run before the others, one after the other, each until it succeeds. With "
        "restartPolicy Always one is a sidecar: it stays.",
        "volumes": "Directories that containers may mount by name.",
        "restartPolicy": "Whether a container that ends is started again: Always, OnFailure or Never. Always unless "
        "said otherwise.",
        "terminationGracePeriodSeconds": "How long containers may take to end after SIGTERM before they are killed. "
        "30 unless said otherwise.",
        "activeDeadlineSeconds": "How long the pod may run before it has failed.",
        "nodeSelector": "The labels that a node must have for the pod to run on it.",
        "nodeName": "The node it runs on. Written by the scheduler; given here, the scheduler isn't asked.",
        "affinity": "Near or far from which nodes and pods it should be.",
        "tolerations": "The nodes' taints that it doesn't mind.",
        "topologySpreadConstraints": "How evenly pods like it are spread over nodes or zones.",
        "serviceAccountName": "As whom it talks to the API. `default` unless said otherwise.",
        "automountServiceAccountToken": "Whether containers find a token of that account. True unless said otherwise.",
        "hostNetwork": "Whether it uses its node's network and address in place of its own.",
        "hostname": "What it calls itself; the pod's name unless said otherwise.",
        "subdomain": "The headless Service under which DNS has its hostname.",
        "dnsPolicy": "ClusterFirst: names of the cluster first, then others. Default: the node's resolvers. None: "
        "dnsConfig alone.",
        "dnsConfig": "Name servers, search paths and options beside those of dnsPolicy.",
        "enableServiceLinks": "Whether containers find the Services of the namespace in their environment, "
        "NAME_SERVICE_HOST and the like. True unless said otherwise.",
        "imagePullSecrets": "Secrets with credentials for the images' registries.",
        "shareProcessNamespace": "Whether its containers see each other's processes.",
        "readinessGates": "Further conditions that must be True before the pod is ready; somebody else writes them.",
    },
    "api.core.v1.Container": {
        "": "A program of a pod, and what surrounds it.",
        "name": "Its name within the pod, a DNS label.",
        "image": "Where its files come from. `host` is this machine's own programs; others are pulled.",
        "imagePullPolicy": "Always, IfNotPresent or Never. Always for the tag latest, else IfNotPresent.",
        "command": "The program and its first arguments, in place of the image's entrypoint. No shell is involved.",
        "args": "Arguments, in place of the image's own. $(NAME) is replaced from the environment.",
        "workingDir": "The directory it starts in; the image's unless said otherwise.",
        "env": "Variables of its environment.",
        "envFrom": "ConfigMaps and Secrets whose entries all become variables.",
        "ports": "The ports it listens on. Naming them is what makes a Service's targetPort by name work; others are "
        "reachable as well.",
        "readinessProbe": "How it is known to be ready. While it isn't, Services send it nothing.",
        "livenessProbe": "How it is known to be alive. When it isn't, it is started again.",
        "startupProbe": "How it is known to have started. Until then the other probes wait.",
        "lifecycle": "What runs after its start and before its end.",
        "resources": "What of the node's CPU and memory is kept for it, and how much it may use.",
        "volumeMounts": "Which of the pod's volumes it sees, and where.",
        "restartPolicy": "Always, on an init container: it is a sidecar.",
        "stdin": "Whether it has a standard input, for `kubectl attach -i`.",
        "tty": "Whether its standard streams are a terminal.",
    },
    "api.core.v1.ContainerPort": {
        "": "A port that a container listens on.",
        "name": "What a Service's targetPort, and probes, may call it: at most 15 characters, unique within the pod.",
        "containerPort": "Its number, at the pod's address.",
        "protocol": "TCP, UDP or SCTP. TCP unless said otherwise.",
        "hostPort": "A port of the node that leads here as well. One pod a node can have it.",
        "hostIP": "The node's address at which it does; all of them unless said otherwise.",
    },
    "api.core.v1.Probe": {
        "": "A question asked of a container again and again.",
        "httpGet": "Ask by HTTP: a status from 200 to 399 is good.",
        "tcpSocket": "Ask for a connection.",
        "exec": "Run a command in the container: exit status 0 is good.",
        "grpc": "Ask gRPC's health service.",
        "initialDelaySeconds": "How long after the container's start it is asked first. 0 unless said otherwise.",
        "periodSeconds": "How long from one question to the next. 10 unless said otherwise.",
        "timeoutSeconds": "How long an answer may take. 1 unless said otherwise.",
        "successThreshold": "How many good answers in a row make it good. 1 unless said otherwise.",
        "failureThreshold": "How many bad ones make it bad. 3 unless said otherwise.",
    },
    "api.core.v1.HTTPGetAction": {
        "": "A question by HTTP.",
        "path": "What is asked for. / unless said otherwise.",
        "port": "The container's port: its number, or its name.",
        "host": "Whom to ask; the pod's address unless said otherwise.",
        "scheme": "HTTP or HTTPS; certificates aren't verified.",
        "httpHeaders": "Headers to send.",
    },
    "api.core.v1.TCPSocketAction": {
        "": "A question by connecting.",
        "port": "The container's port: its number, or its name.",
        "host": "Where to connect to; the pod's address unless said otherwise.",
    },
    "api.core.v1.EnvVar": {
        "": "A variable of a container's environment.",
        "name": "Its name.",
        "value": "Its value, a string: numbers need quotes. $(NAME) is replaced by variables before it.",
        "valueFrom": "Where its value comes from: an entry of a ConfigMap or a Secret, or something about the pod.",
    },
    "api.core.v1.VolumeMount": {
        "": "A volume of the pod in a container.",
        "name": "The volume's name in the pod's volumes.",
        "mountPath": "Where it is in the container.",
        "subPath": "A path inside the volume that is mounted in place of all of it.",
        "readOnly": "Whether it can't be written to.",
    },
    "api.core.v1.Volume": {
        "": "A directory that the pod's containers may mount.",
        "name": "Its name within the pod.",
        "emptyDir": "An empty directory, which goes with the pod.",
        "configMap": "The entries of a ConfigMap as files, kept current.",
        "secret": "The entries of a Secret as files, kept current.",
        "hostPath": "A path of this machine.",
        "persistentVolumeClaim": "The volume of a claim, which outlives the pod.",
        "projected": "Several sources in one directory.",
        "downwardAPI": "What is known about the pod, as files.",
    },
    "api.core.v1.ResourceRequirements": {
        "": "Shares of a node's CPU and memory.",
        "requests": "What is kept for it: a node without as much free isn't chosen.",
        "limits": "The most it may use. With more CPU it is slowed down, with more memory killed.",
    },
    "apimachinery.pkg.apis.meta.v1.LabelSelector": {
        "": "Which labels an object must have. All that is said must hold.",
        "matchLabels": "Labels and the values they must have.",
        "matchExpressions": "Labels whose value must be In or NotIn a list, or that must or must not exist.",
    },
}

WORKLOADS: dict[str, dict[str, str]] = {**_APPS, **_PODS}
