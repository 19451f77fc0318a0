"""Binds claims to volumes, and makes volumes, which are directories, for claims of the class that asks for it."""
