"""Who did what: a line for each request in a file, at the level a policy says.

    policy   which level a request has, and which stages are left out (pure)
    event    a request and its answer as an audit.k8s.io/v1 Event (pure)
    file     the lines on disk: 0600, rotated by size
    auditor  all of that around the handler

Off, it costs nothing: the handler isn't wrapped. Follows k8s.io/apiserver/pkg/audit.
"""
