"""The two channels of an answer: what it thinks aloud, and what is visible."""

from dataclasses import dataclass, field

_OPEN, _CLOSE = "<think>", "</think>"


@dataclass
class Channel:
    """The text of one channel, in the pieces in which it arrived."""

    pieces: list[str] = field(default_factory=list)
    length: int = 0
    """In characters."""

    def add(self, text: str) -> None:
        if text:
            self.pieces.append(text)
            self.length += len(text)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass
class Channels:
    """Sorts text into reasoning and visible text.

    A server with a reasoning parser sends them in fields of their own. One without leaves the tags
    in the text: reasoning is then what is between `<think>`, with which the text begins, and
    `</think>`.
    """

    reasoning: Channel = field(default_factory=Channel)
    visible: Channel = field(default_factory=Channel)
    _beginning: str | None = ""
    """Visible text so far, until it is known whether it begins with a tag."""
    _tagged: bool = False
    """Within tags."""
    _tail: str = ""
    """The last characters within them, which may be the beginning of the end tag."""
    thinks_first: bool = False
    """Whether the first text was reasoning."""

    @property
    def began(self) -> bool:
        """Whether there has been any text."""
        return bool(self.reasoning.length or self.visible.length or self._tagged)

    @property
    def is_thinking(self) -> bool:
        """Whether there has been reasoning and no visible text yet."""
        return (bool(self.reasoning.length) or self._tagged) and not self.visible.length

    @property
    def thought_share(self) -> float:
        """Of all characters."""
        total = self.reasoning.length + self.visible.length
        return self.reasoning.length / total if total else 0.0

    def add(self, thought: str, text: str) -> tuple[str, str]:
        """Add a chunk with both fields as the server sent them; what it brought to each channel."""
        began = self.began
        if text and (self._tagged or self._beginning is not None):
            tagged, text = self._split(text)
            thought += tagged
        self.reasoning.add(thought)
        self.visible.add(text)
        if not began and self.began:
            self.thinks_first = bool(thought) or self._tagged
        return thought, text

    def _split(self, text: str) -> tuple[str, str]:
        """Reasoning and visible text of text that may have tags."""
        if self._beginning is not None:
            text = self._beginning + text
            stripped = text.lstrip()
            if len(stripped) < len(_OPEN) and _OPEN.startswith(stripped):
                self._beginning = text
                return "", ""
            self._beginning = None
            if not stripped.startswith(_OPEN):
                return "", text
            self._tagged, text = True, stripped.removeprefix(_OPEN)
        within = self._tail + text
        found = within.find(_CLOSE)
        if found < 0:
            self._tail = within[1 - len(_CLOSE) :]
            return text, ""
        self._tagged = False
        end = found + len(_CLOSE) - len(self._tail)
        return text[: max(0, end - len(_CLOSE))], text[end:]

    def finish(self) -> None:
        """Take what was held back, because it might have become a tag, for visible text."""
        self.visible.add(self._beginning or "")
        self._beginning = None


def split_tokens(tokens: int, thought: int, visible: int, thinking: bool) -> tuple[int, int]:
    """Reasoning and visible tokens of a chunk with so many characters of each: in proportion where
    it has both, one of each at least. Tokens without a text (an end tag that the server left out)
    belong to the channel in force."""
    if not thought and not visible:
        return (tokens, 0) if thinking else (0, tokens)
    if not thought or not visible:
        return (tokens, 0) if thought else (0, tokens)
    if tokens < 2:
        return 0, tokens
    share = round(tokens * thought / (thought + visible))
    reasoning = min(max(1, share), tokens - 1)
    return reasoning, tokens - reasoning
