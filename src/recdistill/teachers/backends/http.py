"""Any OpenAI-compatible endpoint: a vLLM or llama.cpp server in its own environment, or a hosted model.

Requests run side by side up to a bound. What may get better is tried again after a growing, jittered pause (or
the pause the endpoint asks for): time-outs, broken connections, 429, 5xx, bodies that are cut or wrong. A row
that fails for good is reported and the run goes on. Several endpoints share the load: each takes the next
row when it is free, and a retry goes to the next endpoint.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recdistill.errors import ConfigError, unknown_name
from recdistill.extras import extra
from recdistill.runs import fingerprint
from recdistill.teachers.backends.base import Generation, GenerationRequest, one_by_one
from recdistill.teachers.backends.http_answers import (
    RETRIED,
    Api,
    RefusedError,
    TryAgainError,
    error_text,
    parsed_answer,
    seconds_to_wait,
)
from recdistill.teachers.backends.http_run import HttpRun
from recdistill.teachers.base import Progress

#: Environment variable of the API key, unless another is named.
API_KEY = "OPENAI_API_KEY"


class HttpGenerator:
    """Continues prompts through an OpenAI-compatible endpoint.

    Parameters
    ----------
    model
        The model's name at the endpoint.
    base_urls
        Where it is served, up to and with ``/v1``; all serve the same model.
    api
        ``completions`` continues the prompt as it is, as a fine-tuned teacher needs it; ``chat`` sends it as a
        user's message.
    system
        A system message before it, for ``chat``.
    answers
        Texts a row (``n``); more than one needs a temperature above 0, or a server with beam search.
    max_new_tokens
        At most so many tokens a text.
    temperature
        Of sampling, 0 or above.
    stop
        Texts that end an answer.
    logprobs
        Ask for log-probabilities, which become the scores.
    extra_body
        Further fields of the request, e.g. ``{"use_beam_search": True}``; None takes a field away.
    concurrency
        Requests under way at the same time, all endpoints together.
    timeout
        Seconds for one try.
    retries
        Further tries after the first.
    backoff
        Seconds before the first retry; each further one doubles it, up to `longest_wait`.
    longest_wait
        Seconds between two tries at most, also where the endpoint asks for more.
    give_up_after
        Stop the run when so many rows fail one after the other.
    api_key_env
        Environment variable with the API key. The key is never taken from anywhere else, nor written anywhere.

    Raises
    ------
    ConfigError
        An option is out of range.
    MissingExtraError
        The openai client is not installed.
    """

    def __init__(
        self,
        model: str,
        base_urls: Sequence[str] | str,
        *,
        api: Api = "completions",
        system: str = "",
        answers: int = 1,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        logprobs: bool = False,
        extra_body: Mapping[str, Any] | None = None,
        concurrency: int = 16,
        timeout: float = 120.0,
        retries: int = 5,
        backoff: float = 0.5,
        longest_wait: float = 60.0,
        give_up_after: int = 25,
        api_key_env: str = API_KEY,
    ) -> None:
        self.name = self.model = model
        self.base_urls = _checked_urls([base_urls] if isinstance(base_urls, str) else list(base_urls))
        if api not in ("completions", "chat"):
            raise unknown_name("api", api, ("completions", "chat"))
        if min(answers, max_new_tokens, concurrency, give_up_after) < 1 or retries < 0 or not timeout > 0:
            raise ConfigError(
                f"answers={answers}, max_new_tokens={max_new_tokens}, concurrency={concurrency}, "
                f"give_up_after={give_up_after}, retries={retries}, timeout={timeout} is not possible. Allowed: from "
                "1, retries from 0, timeout above 0. Leave out the one that is wrong."
            )
        self.api: Api = api
        self.system, self.logprobs, self.concurrency = system, logprobs, concurrency
        self.timeout, self.retries, self.backoff = timeout, retries, backoff
        self.longest_wait, self.give_up_after, self.api_key_env = longest_wait, give_up_after, api_key_env
        self.body = _body(api, answers, max_new_tokens, temperature, stop, logprobs, extra_body or {})
        self.settings: Mapping[str, Any] = {"model": model, "api": api, "system": system, "body": self.body}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the settings; where the model is served is not among them."""
        return fingerprint(repr(sorted(self.settings.items())))

    def batches(self, requests: Sequence[GenerationRequest]) -> list[list[GenerationRequest]]:
        """Return one group a request."""
        return one_by_one(requests)

    def generate(
        self, requests: Sequence[GenerationRequest], progress: Progress | None = None
    ) -> Iterator[Generation]:
        """Answer in the order in which answers arrive; closing the iterator cancels what is under way.

        Raises
        ------
        ConfigError
            The endpoint refuses the key, or knows no such address or model.
        RunError
            Too many rows failed one after the other.
        """
        if not requests:
            return
        run = HttpRun(self, requests)
        thread = threading.Thread(target=run.main, name="recdistill-http", daemon=True)
        thread.start()
        try:
            while (found := run.results.get()) is not None:
                if isinstance(found, BaseException):
                    raise found
                yield found
                if progress is not None:
                    progress(1)
        finally:
            run.cancel()
            thread.join()

    def clients(self) -> list[Any]:
        """Return one asynchronous client an endpoint; retries are ours."""
        with extra("llm"):
            from openai import AsyncOpenAI
        # Local servers ask for no key, but the client wants one.
        key = os.environ.get(self.api_key_env) or "none"
        return [
            AsyncOpenAI(api_key=key, base_url=url, max_retries=0, timeout=self.timeout)
            for url in self.base_urls
        ]

    async def ask(self, client: Any, request: GenerationRequest) -> Generation:
        """Send one request once.

        Raises
        ------
        TryAgainError, RefusedError, ConfigError
            What became of it, where it is no answer.
        """
        import openai

        try:
            async with asyncio.timeout(self.timeout):  # the client's own counts from byte to byte
                raw = await self._send(client, request.prompt)
        except (TimeoutError, openai.APITimeoutError):
            raise TryAgainError(f"no whole answer within {self.timeout:g} s") from None
        except openai.APIStatusError as error:
            raise self._status_error(error) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise TryAgainError(f"the connection failed ({type(cause).__name__}: {cause})") from None
        return parsed_answer(request.key, raw.http_response.text, self.api)

    async def _send(self, client: Any, prompt: str) -> Any:
        if self.api == "completions":
            create = client.completions.with_raw_response.create
            return await create(model=self.model, prompt=prompt, extra_body=self.body)
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": prompt})
        create = client.chat.completions.with_raw_response.create
        return await create(model=self.model, messages=messages, extra_body=self.body)

    def _status_error(self, error: Any) -> Exception:
        status, said = error.status_code, error_text(error.response.text)
        if status in RETRIED or status >= 500:
            wait = seconds_to_wait(error.response.headers.get("retry-after"), at_most=self.longest_wait)
            return TryAgainError(f"status {status}", wait)
        if status in (401, 403):
            state = "holds a key that is refused" if os.environ.get(self.api_key_env) else "is not set"
            return ConfigError(
                f"the endpoint answered {status} ({said}): the environment variable {self.api_key_env} {state}. A "
                f"valid API key is needed: export {self.api_key_env}=..., or name another with --api-key-env."
            )
        if status in (404, 405):
            return ConfigError(
                f"the endpoint answered {status} ({said}) for the {self.api} of model {self.model!r} at "
                f"{', '.join(self.base_urls)}. Needed: an OpenAI-compatible address that ends in /v1, and a model it "
                "serves. See what is there with: curl URL/models; or pass the other --api."
            )
        return RefusedError(f"status {status}: {said}")


def _checked_urls(urls: list[str]) -> list[str]:
    for url in urls or [""]:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"the endpoint address {url!r} cannot be used. Allowed: one that begins with http:// or https://. "
                "Pass --base-url http://127.0.0.1:8000/v1"
            )
    return [url.rstrip("/") for url in urls]


def _body(
    api: Api,
    answers: int,
    max_new_tokens: int,
    temperature: float,
    stop: Sequence[str],
    logprobs: bool,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the fields of a request besides model and prompt."""
    body: dict[str, Any] = {"max_tokens": max_new_tokens, "temperature": temperature}
    if answers > 1:
        body["n"] = answers
    if stop:
        body["stop"] = list(stop)
    if logprobs:
        body["logprobs"] = True if api == "chat" else 1
    return {name: value for name, value in {**body, **extra}.items() if value is not None}
