"""Pods' networks by standard CNI plugins, instead of podnet.py's."""
