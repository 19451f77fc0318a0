"""The scheduler: which node each pod runs on."""
