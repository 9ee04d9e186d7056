"""Local Hugging Face models on an engine."""
