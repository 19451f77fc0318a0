"""The reconcilers: what makes objects true. A package each, with a pure `plan` and a thin `controller` around it.

    informers (one a kind, shared) ──► WorkQueue of keys ──► reconcile(key): observe ─► plan (pure) ─► write
                    ▲                                                                                     │
                    └────────────── a write returns once the shared cache shows it ◄──────────────────────┘

That last arrow is what makes a reconciler simple: when it looks at a key again, its own earlier writes are in the
picture, so it never creates twice, and needs no bookkeeping of what it expects.
"""
