"""Disruption budgets: how many more pods may be evicted now."""
