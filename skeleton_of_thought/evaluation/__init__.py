"""Whether Skeleton-of-Thought pays, on one's own model and questions."""
