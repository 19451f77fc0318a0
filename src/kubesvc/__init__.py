"""kubesvc: Kubernetes Services as a system of its own."""

__version__ = "0.1.0"
