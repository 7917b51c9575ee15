"""Two hosts' worth of processes on one machine, and what they show: `make scale-demo`."""
