"""Namespaces: what a new one gets, and how a deleted one is emptied."""
