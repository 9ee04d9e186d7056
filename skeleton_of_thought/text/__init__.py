"""Clean-up and joining of the texts that models write, and guards against repetition."""
