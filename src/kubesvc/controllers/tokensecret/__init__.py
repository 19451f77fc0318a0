"""Secrets that hold a ServiceAccount's token: they go with their account."""
