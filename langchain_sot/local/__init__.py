"""Local Hugging Face models as LangChain models."""
