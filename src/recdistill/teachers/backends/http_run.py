"""One pass over requests in an event loop of its own: workers, retries, pauses, and the end."""

from __future__ import annotations

import asyncio
import queue
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recdistill.errors import RunError
from recdistill.teachers.backends.base import Generation, GenerationRequest
from recdistill.teachers.backends.http_answers import RefusedError, TryAgainError

if TYPE_CHECKING:
    from recdistill.teachers.backends.http import HttpGenerator


@dataclass
class _Endpoint:
    url: str
    client: Any
    resume_at: float = 0.0  # in the event loop's time: a 429 stops all requests to this endpoint


class HttpRun:
    """One pass over requests in an event loop of its own, so that callers need none."""

    def __init__(self, generator: HttpGenerator, requests: Sequence[GenerationRequest]) -> None:
        self.generator, self.waiting = generator, deque(requests)
        self.results: queue.SimpleQueue[Generation | BaseException | None] = queue.SimpleQueue()
        self.failed_in_a_row = 0
        self.random = random.Random()
        self.stop: asyncio.Event | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    def main(self) -> None:
        """Run to the end; results and, as the last, None or an error go to `results`."""
        try:
            asyncio.run(self._work())
        except BaseException as error:  # the thread must never end without a word
            self.results.put(error)
        else:
            self.results.put(None)

    def cancel(self) -> None:
        """End the run early; harmless after its end."""
        self.waiting.clear()
        loop, stop = self.loop, self.stop
        if loop is not None and stop is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(stop.set)
            except RuntimeError:  # closed in between
                return

    async def _work(self) -> None:
        self.loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
        clients = self.generator.clients()
        endpoints = [_Endpoint(u, c) for u, c in zip(self.generator.base_urls, clients, strict=True)]
        count = min(self.generator.concurrency, len(self.waiting))
        workers = [asyncio.create_task(self._worker(endpoints, index)) for index in range(count)]
        stopper = asyncio.create_task(self.stop.wait())
        try:
            whole: asyncio.Future[Any] = asyncio.gather(*workers)
            ends: list[asyncio.Future[Any]] = [whole, stopper]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if whole.done():
                whole.result()
        finally:
            for task in (*workers, stopper):
                task.cancel()
            await asyncio.gather(*workers, stopper, return_exceptions=True)
            await asyncio.gather(*(client.close() for client in clients), return_exceptions=True)

    async def _worker(self, endpoints: list[_Endpoint], first: int) -> None:
        while self.waiting:
            request = self.waiting.popleft()
            answer = await self._answer(endpoints, first, request)
            self.results.put(answer)
            self.failed_in_a_row = self.failed_in_a_row + 1 if answer.failed else 0
            if self.failed_in_a_row >= self.generator.give_up_after:
                raise RunError(
                    f"{self.failed_in_a_row} rows failed one after the other, the last with: {answer.error}. What is "
                    f"answered is kept. See that {', '.join(self.generator.base_urls)} answers, then run the same "
                    "command again."
                )

    async def _answer(self, endpoints: list[_Endpoint], first: int, request: GenerationRequest) -> Generation:
        """Try until there is an answer, a refusal, or no try left."""
        generator, reason = self.generator, ""
        for attempt in range(generator.retries + 1):
            endpoint = endpoints[(first + attempt) % len(endpoints)]
            loop = asyncio.get_running_loop()
            if (pause := endpoint.resume_at - loop.time()) > 0:
                await asyncio.sleep(pause)
            try:
                return await generator.ask(endpoint.client, request)
            except RefusedError as error:
                return Generation(request.key, error=str(error))
            except TryAgainError as error:
                reason = str(error)
                if error.wait is not None:
                    endpoint.resume_at = max(endpoint.resume_at, loop.time() + error.wait)
            if attempt < generator.retries:
                longest = min(generator.backoff * 2**attempt, generator.longest_wait)
                await asyncio.sleep(longest * self.random.uniform(0.5, 1.0))  # jitter: not all at once
        return Generation(request.key, error=f"{reason} (after {generator.retries + 1} tries)")
