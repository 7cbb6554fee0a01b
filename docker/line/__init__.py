"""A straight line, learned from points that stay on their nodes."""
