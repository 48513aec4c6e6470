"""Names on the Hugging Face hub."""

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]


def is_hub_name(name: str) -> bool:
    """Whether this can be a name on the hub (`name` or `owner/name`), and not only a path."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True
