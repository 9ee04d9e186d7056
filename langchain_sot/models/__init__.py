"""The models of a chain: which one a config chooses, what it can do, and how it is called."""
