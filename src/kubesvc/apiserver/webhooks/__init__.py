"""Admission webhooks (admissionregistration.k8s.io/v1): others are asked before an object is written.

    default ──► mutating, one after another ──► default, prepare, validate ──► validating, all at once ──► store
                (JSON patches; again, where asked for)

`matching` decides who is asked, `review` writes the question and reads the answer, `calling` carries them; `asking` is
what the verbs call. Without a configuration none of it costs more than one look.
"""

from kubesvc.apiserver import admission as _first  # noqa: F401  (it needs `configuration`, which needs parts of it)
