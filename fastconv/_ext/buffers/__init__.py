"""Access to arrays, loops over runs of elements, the memory of results, and the cache of calls."""
