"""Course packs: one flat module per course, under the course's own names."""
