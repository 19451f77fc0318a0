"""What `kubectl explain` says of the fields that every object has."""

from __future__ import annotations

META = {
    "apiVersion": "The API version the object is written in, such as v1.",
    "kind": "What the object is, such as Service.",
    "metadata": "Name, namespace, labels and whatever else every object has.",
}
OBJECT = {
    **META,
    "spec": "What it should be.",
    "status": "What has become of it; written by the cluster, never by you.",
}
