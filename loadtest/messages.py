"""What servers say when they say no."""

import json


def error_message(body: str) -> str:
    """The message of an OpenAI-like error response; of any other, its beginning."""
    try:
        content = json.loads(body)
    except ValueError:
        return body[:500]
    error = content.get("error", content) if isinstance(content, dict) else content
    return str(error.get("message", error) if isinstance(error, dict) else error)
