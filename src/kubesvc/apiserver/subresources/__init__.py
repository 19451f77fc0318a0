"""Subresources with a body or a way of their own. `status` is an ordinary get, update and patch of its object."""
