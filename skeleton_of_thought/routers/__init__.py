"""Routers: whether a question is answered through a skeleton."""
