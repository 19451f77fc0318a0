"""Mechanism without policy: network namespaces, links, routes, the nftables codec, conntrack, sysctls."""
