"""DNS on every node: Services -> records (pure) -> wire answers (pure) -> sockets.

    informers ──► world ──► records ──► answers ─┐         the answer is built when the world changes,
                                                 ▼         not when the question comes
    UDP ──► server: one look-up, patch, send ◄── table
    TCP, odd questions ──► resolver ──► forward ──► the machine's own resolvers

`main.run` wires them for one node. Follows the Kubernetes DNS specification 1.1.0.
"""
