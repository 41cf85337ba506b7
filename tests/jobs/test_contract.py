"""What every queue promises: one suite for the one in this process and the one over Redis."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from joker.core.errors import KeyConflictError, QueueFullError, QueueStoppedError, UnknownJobError
from joker.jobs.job import Job, JokeEvent, State, StateEvent
from joker.jobs.queue import MAX_RUNNING_TOKENS, JobQueue
from tests.jobs.events import all_events, last_job, until_told

if TYPE_CHECKING:
    from tests.jobs.conftest import MakeQueue, MakeRequest

pytestmark = pytest.mark.anyio

LONG = 50.0
THREADS = 4


async def until_started(queue: JobQueue, job: Job) -> None:
    async with aclosing(queue.events(job.id)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, StateEvent) and event.job.state is State.STARTED:
                return


async def test_a_job_is_pending_then_told(make_queue: MakeQueue, make_request: MakeRequest) -> None:
    queue = make_queue()
    job = await queue.submit(make_request(count=2))
    assert (job.state, job.attempts, job.jokes) == (State.PENDING, 0, ())
    done = await queue.wait(job.id, LONG)
    assert (done.state, done.attempts, done.error) == (State.SUCCESS, 1, None)
    assert [joke.seed for joke in done.jokes] == [7, 8]
    assert done.request == job.request
    assert await queue.get(job.id) == done


async def test_ids_cannot_be_guessed(make_queue: MakeQueue, make_request: MakeRequest) -> None:
    queue = make_queue()
    ids = {(await queue.submit(make_request())).id for _ in range(5)}
    assert len(ids) == 5
    assert all(len(job_id) >= 20 for job_id in ids)


async def test_an_unknown_id_is_refused(make_queue: MakeQueue) -> None:
    queue = make_queue()
    for job_id in ("nothing", "", "../*", "a:b", "é"):
        with pytest.raises(UnknownJobError, match="no job"):
            await queue.get(job_id)
        with pytest.raises(UnknownJobError):
            await queue.cancel(job_id)
        with pytest.raises(UnknownJobError):
            await queue.wait(job_id, 1)
        with pytest.raises(UnknownJobError):
            await anext(aiter(queue.events(job_id)))


async def test_refused_work_fails_with_its_sentence_and_keeps_what_was_told(
    make_queue: MakeQueue, make_request: MakeRequest
) -> None:
    queue = make_queue()
    done = await queue.wait((await queue.submit(make_request("refuse"))).id, LONG)
    assert (done.state, done.attempts) == (State.FAILURE, 1)
    assert done.error == "the others could not be told in 5 tries; change the prompt"
    assert done.refused
    assert [joke.seed for joke in done.jokes] == [7]


async def test_a_fault_is_tried_again(
    make_queue: MakeQueue, make_request: MakeRequest, gate: Path
) -> None:
    queue = make_queue()
    done = await queue.wait((await queue.submit(make_request(f"fault until {gate}"))).id, LONG)
    assert (done.state, done.attempts, len(done.jokes)) == (State.SUCCESS, 2, 2)


async def test_three_faults_fail_with_a_reason_that_tells_nothing_of_the_inside(
    make_queue: MakeQueue, make_request: MakeRequest
) -> None:
    queue = make_queue()
    done = await queue.wait((await queue.submit(make_request("fault"))).id, LONG)
    assert (done.state, done.attempts, done.refused) == (State.FAILURE, 3, False)
    assert done.error is not None
    assert "3 attempts" in done.error
    assert "stub" not in done.error


@pytest.mark.parametrize(("queues", "own"), [(1.5, None), (60.0, 1.5), (1.5, 60.0)])
async def test_the_nearer_deadline_ends_a_job_whose_work_hangs_and_late_jokes_are_ignored(
    make_queue: MakeQueue, make_request: MakeRequest, gate: Path, queues: float, own: float | None
) -> None:
    queue = make_queue(deadline_seconds=queues)
    job = await queue.submit(replace(make_request(f"deaf {gate}"), deadline_seconds=own))
    done = await queue.wait(job.id, LONG)
    assert (done.state, done.jokes) == (State.FAILURE, ())
    assert done.error is not None
    assert "within 1.5 seconds" in done.error
    gate.touch()
    await asyncio.sleep(0.3)
    assert await queue.get(job.id) == done


async def test_a_full_queue_takes_nothing_in_until_there_is_room(
    make_queue: MakeQueue, make_request: MakeRequest, gate: Path
) -> None:
    queue = make_queue(max_queue_size=2)
    running = [await queue.submit(make_request(f"after {gate}"))]
    while len(running) < THREADS:
        await until_started(queue, running[-1])
        running.append(await queue.submit(make_request(f"after {gate}")))
    await until_started(queue, running[-1])
    waiting = [await queue.submit(make_request()) for _ in range(2)]
    assert (await queue.stats()).waiting == 2
    with pytest.raises(QueueFullError, match="2 jobs are already waiting"):
        await queue.submit(make_request(), key="refused")
    gate.touch()
    for job in [*running, *waiting]:
        assert (await queue.wait(job.id, LONG)).state is State.SUCCESS
    assert (await queue.stats()).waiting == 0
    again = await queue.submit(make_request(), key="refused")
    assert (await queue.wait(again.id, LONG)).state is State.SUCCESS


async def test_a_stop_ends_every_wait(
    make_queue: MakeQueue, make_request: MakeRequest, gate: Path
) -> None:
    queue = make_queue()
    job = await queue.submit(make_request(f"after {gate}"))
    waits = [asyncio.create_task(queue.wait(job.id, LONG)) for _ in range(2)]
    events = asyncio.create_task(all_events(queue, job))
    await until_started(queue, job)
    async with asyncio.timeout(LONG / 2):
        await queue.stop()
        ends = await asyncio.gather(*waits, events, return_exceptions=True)
    goes_on = (await queue.get(job.id)).state is not State.REVOKED
    assert {isinstance(end, QueueStoppedError) for end in ends} == {goes_on}
    gate.touch()


async def test_cancelling_stops_work_and_revokes_for_good(
    make_queue: MakeQueue, make_request: MakeRequest, gate: Path
) -> None:
    queue = make_queue()
    job = await queue.submit(make_request(f"half {gate}"))
    await until_told(queue, job)
    revoked = await queue.cancel(job.id)
    assert (revoked.state, len(revoked.jokes)) == (State.REVOKED, 1)
    gate.touch()
    await asyncio.sleep(0.3)
    assert await queue.get(job.id) == revoked
    assert await queue.cancel(job.id) == revoked
    assert last_job(await all_events(queue, job)).state is State.REVOKED


async def test_cancelling_what_is_told_changes_nothing(
    make_queue: MakeQueue, make_request: MakeRequest
) -> None:
    queue = make_queue()
    job = await queue.submit(make_request())
    done = await queue.wait(job.id, LONG)
    assert await queue.cancel(job.id) == done


async def test_waiting_ends_with_its_time(
    make_queue: MakeQueue, make_request: MakeRequest, gate: Path
) -> None:
    queue = make_queue()
    job = await queue.submit(make_request(f"after {gate}"))
    assert not (await queue.wait(job.id, 0.05)).state.final
    assert not (await queue.wait(job.id, 0)).state.final
    await queue.cancel(job.id)


async def test_the_same_key_gives_the_same_job_even_at_once(
    make_queue: MakeQueue, make_request: MakeRequest
) -> None:
    queue = make_queue()
    key = f"same {id(queue)} \N{SNOWMAN}"
    jobs = await asyncio.gather(*(queue.submit(make_request(), key=key) for _ in range(8)))
    assert len({job.id for job in jobs}) == 1
    done = await queue.wait(jobs[0].id, LONG)
    assert await queue.submit(make_request(), key=key) == done
    with pytest.raises(KeyConflictError, match="a different request"):
        await queue.submit(make_request(seed=8), key=key)


async def test_a_final_job_and_its_key_are_forgotten_in_time(
    make_queue: MakeQueue, make_request: MakeRequest
) -> None:
    queue = make_queue(result_ttl_seconds=0.5)
    key = f"forgotten {id(queue)}"
    job = await queue.submit(make_request(), key=key)
    await queue.wait(job.id, LONG)
    await asyncio.sleep(0.7)
    with pytest.raises(UnknownJobError):
        await queue.get(job.id)
    other = await queue.submit(make_request(seed=8), key=key)
    assert other.id != job.id


async def test_events_tell_the_whole_story_in_order(
    make_queue: MakeQueue, make_request: MakeRequest, gate: Path
) -> None:
    queue = make_queue()
    job = await queue.submit(make_request(f"half {gate}"))
    told = []
    async with aclosing(queue.events(job.id)) as events:  # type: ignore[type-var]
        async for event in events:
            told.append(event)
            if event.name == "joke":
                gate.touch()
    states = [event.job.state for event in told if isinstance(event, StateEvent)]
    assert states == [State.PENDING, State.STARTED, State.SUCCESS]
    jokes = [event for event in told if isinstance(event, JokeEvent)]
    assert [event.index for event in jokes] == [0, 1]
    assert jokes[0].joke.question == "What is joke number 0?"
    assert last_job(told) == await queue.get(job.id)


async def test_a_client_that_is_slow_with_an_event_misses_none(
    make_queue: MakeQueue, make_request: MakeRequest, gate: Path
) -> None:
    queue = make_queue()
    job = await queue.submit(make_request(f"half {gate}"))
    told = []
    async with aclosing(queue.events(job.id)) as events:  # type: ignore[type-var]
        async for event in events:
            told.append(event)
            if event.name == "joke" and not gate.exists():
                gate.touch()
                await queue.wait(job.id, LONG)
                await asyncio.sleep(0.2)  # the news of the end arrives meanwhile
    assert [event.index for event in told if isinstance(event, JokeEvent)] == [0, 1]
    assert last_job(told).state is State.SUCCESS


async def test_a_client_that_was_cut_off_goes_on_behind_what_it_saw(
    make_queue: MakeQueue, make_request: MakeRequest, gate: Path
) -> None:
    queue = make_queue()
    job = await queue.submit(make_request(f"half {gate}"))
    seen = await until_told(queue, job)
    gate.touch()
    rest = await all_events(queue, job, after=seen[-1].id)
    whole = await all_events(queue, job)
    assert [e for e in seen + rest if e.name != "partial"] == whole
    assert await all_events(queue, job, after=whole[-1].id) == []


@pytest.mark.parametrize("after", ["nonsense", "-1", "1" * 5000, "1-2-3", "$", "+"])
async def test_an_unreadable_event_id_starts_from_the_beginning(
    make_queue: MakeQueue, make_request: MakeRequest, after: str
) -> None:
    queue = make_queue()
    job = await queue.submit(make_request())
    told = await all_events(queue, job, after=after)
    assert last_job(told[:1]).state is State.PENDING
    assert last_job(told).state is State.SUCCESS


async def test_after_a_fault_the_story_starts_again(
    make_queue: MakeQueue, make_request: MakeRequest, gate: Path
) -> None:
    queue = make_queue()
    job = await queue.submit(make_request(f"fault until {gate}"))
    told = await all_events(queue, job)
    states = [event.job.state for event in told if isinstance(event, StateEvent)]
    assert states == ["PENDING", "STARTED", "PENDING", "STARTED", "SUCCESS"]


async def test_a_job_larger_than_what_is_admitted_is_told_and_so_is_the_next(
    make_queue: MakeQueue, make_request: MakeRequest
) -> None:
    queue = make_queue()
    larger = replace(make_request(), candidates=MAX_RUNNING_TOKENS)
    for job in [await queue.submit(larger), await queue.submit(make_request())]:
        assert (await queue.wait(job.id, LONG)).state is State.SUCCESS


async def test_the_load_says_what_there_is_to_do_and_by_whom(
    make_queue: MakeQueue, make_request: MakeRequest, gate: Path
) -> None:
    queue = make_queue()
    told = await queue.submit(make_request())
    await queue.wait(told.id, LONG)
    while not (stats := await queue.stats()).workers:
        await asyncio.sleep(0.1)
    assert (stats.waiting, stats.running) == (0, 0)
    assert stats.told_seconds_ago is not None
    job = await queue.submit(make_request(f"after {gate}"))
    await until_started(queue, job)
    assert (await queue.stats()).running == 1
    gate.touch()
    await queue.wait(job.id, LONG)
    assert (await queue.stats()).running == 0


async def test_what_failed_or_was_cancelled_does_not_count_as_told(
    make_queue: MakeQueue, make_request: MakeRequest, gate: Path
) -> None:
    queue = make_queue()
    await queue.wait((await queue.submit(make_request())).id, LONG)
    await asyncio.sleep(0.3)
    await queue.wait((await queue.submit(make_request("refuse"))).id, LONG)
    job = await queue.submit(make_request(f"after {gate}"))
    await until_started(queue, job)
    await queue.cancel(job.id)
    while (stats := await queue.stats()).running:
        await asyncio.sleep(0.01)
    assert stats.told_seconds_ago is not None
    assert stats.told_seconds_ago >= 0.3


async def test_a_job_knows_the_request_that_asked_first(
    make_queue: MakeQueue, make_request: MakeRequest
) -> None:
    queue = make_queue()
    key = f"asked {id(queue)}"
    jobs = [
        await queue.submit(make_request(), key=key, request_id=request_id)
        for request_id in ('first "one"', "second", None)
    ]
    assert {(job.id, job.request_id) for job in jobs} == {(jobs[0].id, 'first "one"')}
    assert (await queue.wait(jobs[0].id, LONG)).request_id == 'first "one"'
    assert (await queue.submit(make_request())).request_id is None


async def test_many_jobs_are_each_told_once(
    make_queue: MakeQueue, make_request: MakeRequest
) -> None:
    queue = make_queue(max_queue_size=64)
    jobs = [await queue.submit(make_request(count=1, seed=seed)) for seed in range(20)]
    for job in jobs:
        told = await all_events(queue, job)
        assert [event.name for event in told if event.name != "partial"] == [
            "state",
            "state",
            "joke",
            "state",
        ]
        done = last_job(told)
        assert (done.state, done.attempts) == (State.SUCCESS, 1)
        assert [joke.seed for joke in done.jokes] == [job.request.seed]
