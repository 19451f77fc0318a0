"""Custom resources: kinds that are objects themselves (apiextensions.k8s.io/v1 CustomResourceDefinition).

    definition ──► admission: is it structural? ──► names accepted? ──► Kinds: served, printed, described
                                                                          │
    instance ──► prune ──► default ──► validate (schema, then CEL) ───────┘──► store, in the storage version

`structural`, `validation` and `rules` are the schema's three readers; `kind` is what the rest of the server sees of a
custom kind; `kinds` holds those that are served now; `naming` and `cleanup` run beside the server.
Versions differ in schema alone (conversion strategy None).
"""

from kubesvc.apiserver import admission as _first  # noqa: F401  (it needs `instances`, which needs parts of it)
