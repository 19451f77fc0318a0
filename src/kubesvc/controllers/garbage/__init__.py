"""Garbage collection: what belongs to nobody any more is deleted."""
