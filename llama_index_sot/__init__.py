"""Skeleton-of-Thought for LlamaIndex.

This package is where the query engine and the response synthesizer will live; it has no public names yet.
"""

__all__: list[str] = []
