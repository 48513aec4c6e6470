"""An OpenAI-compatible server for models that think before every token."""

__version__ = "0.1.0"
