"""A client that leaves a stream of events, at the moments when that is easily missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.types import Message

from joker.web.streams import EventStream

SCOPE = {"type": "http", "method": "POST", "asgi": {"spec_version": "2.3"}}


def test_a_lost_cancellation_does_not_keep_the_job_of_a_client_that_left() -> None:
    async def scenario() -> list[str]:
        told: list[str] = []
        began, revoked = asyncio.Event(), asyncio.Event()

        async def events() -> AsyncGenerator[bytes]:
            try:
                began.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    told.append("cancellation lost")
                await revoked.wait()
                yield b"the job was revoked"
            finally:
                told.append("closed")

        async def leave() -> None:
            revoked.set()

        async def receive() -> Message:
            await began.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            told.append(message["type"])

        async with asyncio.timeout(60):
            await EventStream(events(), leave)(SCOPE, receive, send)
        return told

    told = asyncio.run(scenario())
    assert told == ["http.response.start", "cancellation lost", "closed"]


def test_a_client_that_leaves_before_the_first_byte_leaves_no_job_behind() -> None:
    async def scenario() -> bool:
        sending, left = asyncio.Event(), asyncio.Event()

        async def events() -> AsyncGenerator[bytes]:
            yield b"never asked for"

        async def leave() -> None:
            left.set()

        async def receive() -> Message:
            await sending.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sending.set()
            await asyncio.Event().wait()

        async with asyncio.timeout(60):
            await EventStream(events(), leave)(SCOPE, receive, send)
        return left.is_set()

    assert asyncio.run(scenario())
