"""Access to the system: instruction set, CPUs, threads and the thread pool, memory for results and workspaces."""
