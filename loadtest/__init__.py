"""Load tests for any OpenAI-compatible server."""
