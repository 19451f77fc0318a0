"""Google Cloud's regional passthrough network load balancers, external and internal."""
