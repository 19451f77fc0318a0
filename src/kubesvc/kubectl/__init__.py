"""apply, get, delete, logs and exec, for machines without kubectl: thin, over our own client, with kubectl's output."""
