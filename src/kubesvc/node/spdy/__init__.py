"""SPDY/3.1 as Kubernetes clients speak it: frames (pure), and streams over a connection."""
