"""`kubesvc demo`: what a Service promises, shown with real traffic and checked, scene by scene."""
