"""Claims and volumes that are used stay until they no longer are."""
