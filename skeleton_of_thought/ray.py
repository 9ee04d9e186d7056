"""Answers over a cluster: a callable class for Ray Data's `map_batches`."""
