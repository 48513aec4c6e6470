"""Server-sent events, however their bytes are cut."""

from loadtest.client.sse import EventParser

STREAM = (
    b": keep-alive\r\n\r\ndata: one\r\n\r\nevent: x\r\ndata:two\r\ndata: lines\r\n\r\ndata: 3\n\n"
)


def test_events_are_the_same_however_the_bytes_are_cut() -> None:
    for size in range(1, len(STREAM) + 1):
        parser = EventParser()
        events = []
        for start in range(0, len(STREAM), size):
            events += parser.feed(STREAM[start : start + size])
        assert events == [b"one", b"two\nlines", b"3"], f"in pieces of {size} bytes"


def test_an_event_is_given_as_soon_as_it_is_complete() -> None:
    parser = EventParser()
    assert parser.feed(b"data: a\n\ndata: b") == [b"a"]
    assert parser.feed(b"c\n") == []
    assert parser.feed(b"\n") == [b"bc"]
