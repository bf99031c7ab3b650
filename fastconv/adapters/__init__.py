"""One module for each third party, the only one that imports it."""
