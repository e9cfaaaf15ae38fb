"""The batch worker: batches, callers that leave, overload, failures and its end."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from turnwise_server.moderation.detector import DetectorError
from turnwise_server.moderation.worker import BatchWorker


class Gate:
    """Doubles numbers as soon as it is open, raises for negative ones, and notes every batch."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.batches: list[list[int]] = []

    def run(self, items: list[int]) -> list[int]:
        """Wait for the gate, then double each item."""
        self.batches.append(items)
        assert self.open.wait(5)
        if any(item < 0 for item in items):
            raise ArithmeticError("negative")
        return [2 * item for item in items]


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest_asyncio.fixture
async def worker(gate: Gate) -> AsyncIterator[BatchWorker[int, int]]:
    made = BatchWorker(gate.run, name="doubler", max_batch=4, max_queued=8)
    yield made
    gate.open.set()
    await made.close()


async def begun(worker: BatchWorker[int, int], *lots: list[int]) -> list[asyncio.Task[list[int]]]:
    """Return a task for each lot of items; all have submitted them."""
    tasks = [asyncio.create_task(worker.submit(lot)) for lot in lots]
    await asyncio.sleep(0)
    return tasks


async def test_each_caller_gets_its_results_in_order(worker: BatchWorker[int, int], gate: Gate) -> None:
    gate.open.set()
    results = await asyncio.gather(worker.submit([3, 1]), worker.submit([2]), worker.submit([]))
    assert list(results) == [[6, 2], [4], []]


async def test_what_waits_for_the_thread_becomes_one_batch(worker: BatchWorker[int, int], gate: Gate) -> None:
    tasks = await begun(worker, [0], [1, 2], [3, 4, 5])
    gate.open.set()
    assert list(await asyncio.gather(*tasks)) == [[0], [2, 4], [6, 8, 10]]
    assert gate.batches == [[0], [1, 2, 3, 4], [5]]


async def test_items_of_a_caller_who_left_are_dropped(worker: BatchWorker[int, int], gate: Gate) -> None:
    running, leaving, staying = await begun(worker, [0], [1, 2], [3])
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    gate.open.set()
    assert [await running, await staying] == [[0], [6]]
    assert gate.batches == [[0], [3]]


async def test_a_caller_may_leave_while_its_batch_runs(worker: BatchWorker[int, int], gate: Gate) -> None:
    (running,) = await begun(worker, [1])
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    gate.open.set()
    assert await worker.submit([2]) == [4]


async def test_more_than_may_wait_is_refused_at_once(worker: BatchWorker[int, int], gate: Gate) -> None:
    running, waiting = await begun(worker, [0], [1, 2, 3, 4, 5, 6])
    with pytest.raises(DetectorError, match="overloaded: 6"):
        await worker.submit([7, 8, 9])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    (later,) = await begun(worker, [7, 8, 9])
    gate.open.set()
    assert [await running, await later] == [[0], [14, 16, 18]]


async def test_an_exception_reaches_each_caller_of_the_batch_and_the_worker_goes_on(
    worker: BatchWorker[int, int], gate: Gate
) -> None:
    tasks = await begun(worker, [0], [-1], [1], [2, 3, 4])
    gate.open.set()
    first, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert first == [0]
    for failure in others:
        assert isinstance(failure, DetectorError)
        assert isinstance(failure.__cause__, ArithmeticError)
    assert await worker.submit([5]) == [10]


async def test_a_wrong_number_of_results_is_an_error() -> None:
    worker = BatchWorker[int, int](lambda items: items[1:], name="short")
    with pytest.raises(DetectorError, match="ValueError"):
        await worker.submit([1, 2])
    await worker.close()


async def test_the_event_loop_goes_on_while_the_thread_works(
    worker: BatchWorker[int, int], gate: Gate
) -> None:
    (task,) = await begun(worker, [1])
    await asyncio.sleep(0.01)
    assert not task.done()
    gate.open.set()
    assert await task == [2]


async def test_close_fails_what_waits_lets_the_batch_end_and_leaves_no_thread(gate: Gate) -> None:
    worker = BatchWorker(gate.run, name="ending")
    running, leaving, waiting = await begun(worker, [1], [2], [3])
    leaving.cancel()
    closing = asyncio.create_task(worker.close())
    with pytest.raises(DetectorError, match="closed"):
        await waiting
    gate.open.set()
    await closing
    assert await running == [2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ending")]
    with pytest.raises(DetectorError, match="closed"):
        await worker.submit([3])
    await worker.close()
