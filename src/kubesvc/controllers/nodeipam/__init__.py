"""Pod address blocks: which part of the pod network each node has."""
