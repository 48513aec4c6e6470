"""Whether the engine replies, with a made-up engine and clock."""

import asyncio

from server.engine.pulse import Pulse


class FakeEngine:
    """Replies while it may."""

    def __init__(self) -> None:
        self.may_reply = asyncio.Event()
        self.is_dead = False
        self.asked = 0
        self.now = 100.0

    async def ask(self) -> None:
        self.asked += 1
        await self.may_reply.wait()
        if self.is_dead:
            raise RuntimeError("dead")


async def replied() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_engine_that_replies_is_not_silent_however_seldom_it_is_asked() -> None:
    engine = FakeEngine()
    engine.may_reply.set()
    pulse = Pulse(engine.ask, lambda: engine.now)
    for _ in range(3):
        assert pulse.silence() == 0
        await replied()
        engine.now += 1000
    assert engine.asked == 3


async def test_silence_lasts_from_the_question_to_the_reply() -> None:
    engine = FakeEngine()
    pulse = Pulse(engine.ask, lambda: engine.now)
    assert pulse.silence() == 0
    await replied()
    engine.now += 7
    assert pulse.silence() == 7
    engine.now += 20
    assert pulse.silence() == 27
    assert engine.asked == 1
    engine.may_reply.set()
    await replied()
    assert pulse.silence() == 0
    await replied()
    assert engine.asked == 2


async def test_a_dead_engine_is_not_silent() -> None:
    engine = FakeEngine()
    engine.is_dead = True
    engine.may_reply.set()
    pulse = Pulse(engine.ask, lambda: engine.now)
    assert pulse.silence() == 0
    await replied()
    engine.now += 50
    assert pulse.silence() == 0
