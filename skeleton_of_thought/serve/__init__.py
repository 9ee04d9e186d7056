"""An HTTP server that answers by Skeleton-of-Thought behind OpenAI's chat completions; see docs/serve.md."""
