"""Server-sent events, as OpenAI-like servers stream their answers."""


class EventParser:
    """Splits the bytes of a stream into the data of its events, in whatever pieces they arrive.

    By the rules of `text/event-stream`: lines end with CR, LF or both; a blank line ends an event;
    its `data` lines are joined by newlines. Comments and other fields (keep-alives, names) are
    ignored.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, received: bytes) -> list[bytes]:
        """The data of the events that `received` completes."""
        received = self._rest + received
        # The LF of a CR LF may not have arrived yet.
        end = len(received) - received.endswith(b"\r")
        lines = received[:end].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + received[end:]
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        return events
