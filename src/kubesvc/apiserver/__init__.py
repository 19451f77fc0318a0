"""The Kubernetes API over a store: one file a verb, admission a file a kind.

    listener ─► chain (recover, authenticate) ─► routing ─► a verb ─► admission (pure) ─► writing ─► store
                                                    │
                                                    └─► discovery, health, openapi, logs and exec (to a node)

Everything from `chain` on speaks `client.transport.Request` and `Response`, so a controller in this process goes
through the same authentication and admission as kubectl.
"""
