"""Code that the adapters of all frameworks share."""
