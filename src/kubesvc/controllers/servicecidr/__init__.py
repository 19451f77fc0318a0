"""ServiceCIDRs: ready for use, or kept while an address only they cover is in use."""
