"""nftables over netlink, in nft's own words: Table, Chain, Rule, Map, Element; add, flush, delete.

    expressions ─► objects ─► transaction ─► Connection   the kernel, one atomic batch
                     elements ─┘         └─► MemoryNft    the same, in memory; `trace` sends a packet through

Mechanism without policy: nothing here knows what a Service is. No `nft` program is needed; tests read back with it.
Needs Linux 5.10 (comments on tables); everything else is older.
"""
