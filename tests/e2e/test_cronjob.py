"""A CronJob on a running box: what is due is run, and is deleted with it."""

from __future__ import annotations

import json

from support.box import eventually
from support.objects import LONG_DUE, far_away


def test_a_cron_jobs_job_runs(three_nodes, namespace) -> None:
    """Its record says that it was due years ago; the next time is months away."""

    def kubectl(*words: str, **options) -> str:
        return three_nodes.kubectl("-n", namespace, *words, **options)

    container = {"name": "c", "image": "host", "command": ["sh", "-c", "echo tidy"]}
    job = {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    spec = {"schedule": far_away(), "timeZone": "Asia/Kathmandu", "jobTemplate": {"spec": job}}
    tree = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tidy"}, "spec": spec}
    kubectl("apply", "-f", "-", input=json.dumps(tree))
    kubectl("patch", "cronjob/tidy", "--subresource=status", "-p", LONG_DUE)
    shown = "jsonpath={.status.lastSuccessfulTime}"
    eventually(lambda: kubectl("get", "cronjob", "tidy", "-o", shown), what="its success recorded")
    (name,) = kubectl("get", "jobs", "-o", "name").split()
    assert kubectl("logs", name) == "tidy\n"
    timestamp = r"jsonpath={.metadata.annotations.batch\.kubernetes\.io/cronjob-scheduled-timestamp}"
    assert kubectl("get", name, "-o", timestamp).endswith("-01T00:00:00+05:45")
    kubectl("delete", "cronjob", "tidy")
    eventually(lambda: not kubectl("get", "jobs,pods", "-o", "name"), what="its Job and pod gone")
