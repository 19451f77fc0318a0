"""`kubesvc up`: a whole cluster on one machine. Certificates, namespaces of nodes, and the processes that live in them.

A box is wiring alone: every decision about Services is made in a room. Nodes are network namespaces; of the host's own
network nothing changes but one link into the node network.
"""
