"""What is done to the texts that models write: clean-up, joining, and guards against repetition."""
