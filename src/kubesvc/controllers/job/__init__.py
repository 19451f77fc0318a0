"""Jobs: pods that run to success, so many times."""
