"""The vocabulary every room speaks: typed objects, the registry of kinds, selectors, Status errors.

Pure: nothing here reads a clock, a file or a socket. Rooms that must agree on a meaning ("is this endpoint ready?",
"which port does targetPort mean?") ask this package instead of each other.
"""
