"""How every room reaches the API: sessions over two transports, kubeconfig, informers, work queues."""
