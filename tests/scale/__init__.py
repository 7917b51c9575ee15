"""What a node can carry: a queueing model of it, checked beside a real one."""
