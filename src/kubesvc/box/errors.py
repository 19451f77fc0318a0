"""What can go wrong with a box, in words for its owner.

BoxError          the message names the box, the value, what was expected and the remedy
└── AlreadyRunning
"""

from __future__ import annotations


class BoxError(Exception):
    pass


class AlreadyRunning(BoxError):
    pass
