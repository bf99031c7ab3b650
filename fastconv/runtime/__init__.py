"""What the system offers: instruction set, CPUs, threads and the pool of workers, memory for results and workspaces."""
