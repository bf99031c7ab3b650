"""Course packs: one flat module for each course, with the names that the course uses."""
