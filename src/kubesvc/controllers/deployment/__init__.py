"""Deployments: rollouts of a template, by way of ReplicaSets."""
