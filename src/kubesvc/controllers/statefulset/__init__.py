"""StatefulSets: pods with names that stay, made, replaced and ended in order."""
