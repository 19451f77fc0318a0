"""DNS on every node: Services -> records (pure) -> wire answers (pure) -> sockets.

    informers ──► world: what has changed ──► answers ──► records ──► table     an answer is made when first asked for,
                                                                       │        and kept until the world changes
    UDP ──► datagrams ──► server: one look-up, answered in place ◄─────┘
    TCP, odd questions ──► resolver ──► forward ──► the machine's own resolvers

`main.run` wires them for one node. Follows the Kubernetes DNS specification 1.1.0.
"""
