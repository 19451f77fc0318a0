"""Nodes that fall silent, and what ran on nodes that are gone."""
