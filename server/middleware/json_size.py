"""How many values the text of a JSON document has, found without parsing it."""

# A parsed value takes up to a few hundred bytes, for two bytes of text.
MAX_VALUES = 1 << 20
_SEPARATORS = (b",", b"[", b"{")


def has_too_many_values(body: bytes | bytearray) -> bool:
    """Whether a body has more than `MAX_VALUES` values (numbers, texts, lists, maps, in all).

    Linear in the length of the body, and quick: a body of 32 MiB takes a fraction of a second.
    """
    if _separators(body) < MAX_VALUES:
        return False
    # In UTF-16 and UTF-32, which JSON may be in, what follows would not find the texts.
    if b"\0" in body:
        return True
    # A value may be a text that has a name: four quotes.
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if unescaped.count(b'"') > 4 * MAX_VALUES:
        return True
    return _separators(b" ".join(unescaped.split(b'"')[::2])) >= MAX_VALUES


def _separators(text: bytes | bytearray) -> int:
    return sum(text.count(separator) for separator in _SEPARATORS)
