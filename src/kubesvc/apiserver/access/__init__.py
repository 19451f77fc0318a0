"""Who may do what: every request is somebody's, and is answered only where a rule says so.

    attributes   what a request wants to do, in the words rules are written in
    grants       rules compiled: whether they allow it, a few look-ups in sets whatever their number
    rbac         which rules are a user's: roles and bindings, kept as they are committed
    node         what a node may do of that: what concerns itself
    escalation   nobody gives what they don't have
    roles        the roles and bindings every cluster has
    reviews      asking without doing: SubjectAccessReview and its family
    check        all of that in front of a verb

Follows plugin/pkg/auth/authorizer/{rbac,node} of Kubernetes. Members of system:masters may do everything, as upstream.
"""
