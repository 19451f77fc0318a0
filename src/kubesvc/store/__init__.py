"""An ordered, watchable log of versioned objects: the Store protocol and its implementations (memory, sqlite, etcd)."""
