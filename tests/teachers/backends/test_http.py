"""The endpoint backend against a real server on this machine that misbehaves on purpose."""

import json
import threading
import time
from collections import Counter
from email.utils import formatdate

import pytest

from misbehaving_server import running
from recdistill.errors import ConfigError, RunError
from recdistill.teachers.backends.base import GenerationRequest
from recdistill.teachers.backends.http import HttpGenerator
from recdistill.teachers.backends.http_answers import seconds_to_wait
from recdistill.teachers.generation.answers import GenerationStore, generate_rows


@pytest.fixture
def server():
    with running() as made:
        yield made


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def requests(count):
    return [GenerationRequest(100 + i, f"prompt {i}") for i in range(count)]


def generator(urls, **options):
    given = {"backoff": 0.01, "timeout": 5.0, "retries": 3, "concurrency": 4, **options}
    return HttpGenerator("m", urls, **given)


def ask(server, count=3, **options):
    return {a.key: a for a in generator(server.url, **options).generate(requests(count))}


def test_every_row_is_answered_with_a_bounded_number_under_way(server):
    server.delay = 0.03
    done = []
    answers = {a.key: a for a in generator(server.url).generate(requests(20), done.append)}
    assert {key: a.texts for key, a in answers.items()} == {100 + i: (f"title {i}",) for i in range(20)}
    assert server.most == 4
    assert sum(done) == 20
    assert set(server.tries.values()) == {1}
    assert (answers[100].prompt_tokens, answers[100].new_tokens, answers[100].scores) == (2, 3, ())
    path, body = server.bodies[0]
    assert path == "/v1/completions"
    assert body == {"model": "m", "prompt": body["prompt"], "max_tokens": 128, "temperature": 0.0}


def test_chat_sends_messages_and_options(server):
    options = {"system": "You know films.", "stop": ["\n"], "extra_body": {"max_tokens": None, "seed": 7}}
    answers = ask(server, 1, api="chat", logprobs=True, answers=2, temperature=0.5, **options)
    assert answers[100].texts == ("title 0",)
    path, body = server.bodies[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "You know films."},
            {"role": "user", "content": "prompt 0"},
        ],
        "temperature": 0.5,
        "n": 2,
        "stop": ["\n"],
        "logprobs": True,
        "seed": 7,
    }


@pytest.mark.parametrize(
    "trouble",
    [
        "cut",
        "wrong json",
        "hang up",
        (500, '{"error": {"message": "boom"}}'),
        (503, "<html>busy</html>"),
        (408, "{}"),
        (200, "[]"),
        (200, '"text"'),
        (200, '{"choices": []}'),
        (200, '{"choices": "none"}'),
        (200, '{"choices": [{"text": null}]}'),
        (200, '{"choices": [5]}'),
        (200, ""),
    ],
    ids=str,
)
def test_trouble_that_passes_is_tried_again(server, trouble):
    server.script["prompt 1"] = [trouble, trouble, "good"]
    answers = ask(server)
    assert answers[101].texts == ("title 1",)
    assert server.tries == {"prompt 0": 1, "prompt 1": 3, "prompt 2": 1}


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("cut", "the connection failed"),
        ("wrong json", "not valid JSON"),
        ((500, "boom"), "status 500"),
        ((200, '{"choices": []}'), "no choices"),
        ((200, '{"choices": [{"message": {}}]}'), "no text"),
    ],
    ids=str,
)
def test_trouble_that_stays_fails_its_row_only(server, trouble, said):
    server.script["prompt 1"] = [trouble]
    answers = ask(server)
    assert [answers[key].failed for key in (100, 101, 102)] == [False, True, False]
    assert said in answers[101].error
    assert "after 4 tries" in answers[101].error
    assert server.tries["prompt 1"] == 4


def test_a_slow_answer_is_given_up_and_asked_again(server):
    server.script["prompt 0"] = ["slow", "good"]
    start = time.monotonic()
    answers = ask(server, 2, timeout=0.3)
    assert answers[100].texts == ("title 0",)
    assert server.tries["prompt 0"] == 2
    assert time.monotonic() - start < 1.4
    server.script["prompt 0"] = ["slow"]
    assert "within 0.2 s" in ask(server, 1, timeout=0.2, retries=0)[100].error


def test_an_answer_that_drips_in_is_given_up_as_well(server):
    server.script["prompt 0"] = ["drip", "good"]
    start = time.monotonic()
    answers = ask(server, 1, timeout=0.4)
    assert answers[100].texts == ("title 0",)
    assert time.monotonic() - start < 1.4  # the whole of it takes 1.5 s


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_kept_by_all_requests_to_the_endpoint(server, form):
    wait = "0.6" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    server.script["prompt 0"] = [(429, "{}", {"Retry-After": wait}), "good"]
    answers = ask(server, 6, concurrency=1 if form == "seconds" else 2)
    assert all(not answer.failed for answer in answers.values())
    times = [at for prompt, at in server.times if prompt == "prompt 0"]
    assert times[1] - times[0] >= (0.55 if form == "seconds" else 0.9)
    assert server.tries["prompt 0"] == 2
    if form == "date":  # the other worker waits as well, but for what was under way
        early = [p for p, at in server.times if p != "prompt 0" and at < times[1] - 0.2]
        assert len(early) <= 2


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("3", 3, 3),
        ("-5", 0, 0),
        ("9999", 60, 60),
        ("nan", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_retry_after_is_read_with_bounds(header, low, high):
    found = seconds_to_wait(header, at_most=60)
    assert found is None if low is None else low <= found <= high
    date = seconds_to_wait(formatdate(time.time() + 20, usegmt=True), at_most=60)
    assert 17 <= date <= 20


def test_a_request_that_is_refused_is_not_repeated(server):
    server.script["prompt 1"] = [(400, '{"error": {"message": "prompt is\\n too long"}}')]
    answers = ask(server)
    assert answers[101].error == "status 400: prompt is too long"
    assert server.tries["prompt 1"] == 1


def test_the_key_comes_from_the_environment_and_its_name_is_in_the_error(server, monkeypatch):
    server.script["*"] = [(401, '{"error": {"message": "bad key"}}')]
    with pytest.raises(ConfigError, match=r"MY_KEY is not set.*export MY_KEY") as error:
        ask(server, api_key_env="MY_KEY")
    monkeypatch.setenv("MY_KEY", "sesame-123")
    with pytest.raises(ConfigError, match=r"bad key.*MY_KEY holds a key that is refused") as error:
        ask(server, api_key_env="MY_KEY")
    assert "sesame" not in str(error.value)
    assert server.headers[-1] == "Bearer sesame-123"
    assert "sesame" not in json.dumps(dict(generator(server.url, api_key_env="MY_KEY").settings))


def test_an_address_that_is_wrong_is_told_at_once(server):
    server.script["*"] = [(404, '{"error": "model m does not exist"}')]
    with pytest.raises(ConfigError, match=r"model m does not exist.*/v1.*curl"):
        ask(server, 5)
    for url in ("127.0.0.1:8000/v1", "", "file:///etc"):
        with pytest.raises(ConfigError, match="http://"):
            HttpGenerator("m", url)
    with pytest.raises(ConfigError, match="concurrency=0"):
        HttpGenerator("m", server.url, concurrency=0)
    with pytest.raises(ConfigError, match="Did you mean 'chat'"):
        HttpGenerator("m", server.url, api="chats")


def test_nobody_there_stops_the_run_and_says_so():
    with running() as gone:
        url = gone.url
    with pytest.raises(
        RunError, match=r"3 rows failed one after the other.*connection failed.*same command again"
    ):
        list(generator(url, retries=1, give_up_after=3).generate(requests(50)))


def test_endpoints_share_the_load_and_stand_in_for_each_other(server):
    with running() as second:
        server.delay = second.delay = 0.02
        answers = list(generator([server.url, second.url]).generate(requests(16)))
        assert len({a.key for a in answers}) == 16
        assert min(sum(server.tries.values()), sum(second.tries.values())) >= 4
        server.script["*"] = [(500, "down")]
        more = list(generator([server.url, second.url + "/"]).generate(requests(6)))
        assert not any(answer.failed for answer in more)


def test_answers_are_sorted_by_their_log_probabilities(server):
    def choice(text, *values):
        return {"text": text, "logprobs": {"token_logprobs": list(values)}}

    three = [choice("b", -1.0, -1.0), choice("a", -0.5), choice("b", -3.0), choice("c", -0.25, -4)]
    server.script["prompt 0"] = [{"choices": three}]
    answer = ask(server, 1)[100]
    assert (answer.texts, answer.scores) == (("a", "b", "c"), (-0.5, -2.0, -4.25))
    content = {"content": [{"logprob": -0.5}, {"logprob": -0.25}]}
    chat = {"choices": [{"message": {"content": "x"}, "logprobs": content}]}
    server.script["prompt 0"] = [chat]
    assert ask(server, 1, api="chat")[100].scores == (-0.75,)
    server.script["prompt 0"] = [{"choices": [{"text": "z"}, choice("a", -0.5)]}]
    answer = ask(server, 1)[100]
    assert (answer.texts, answer.scores) == (("z", "a"), ())


def test_closing_early_cancels_what_is_under_way(server):
    server.delay = 0.05
    answers = generator(server.url, concurrency=2).generate(requests(200))
    next(answers)
    answers.close()
    assert sum(server.tries.values()) < 20
    assert not [t for t in threading.enumerate() if t.name == "recdistill-http"]


def test_failed_rows_stay_pending_until_they_are_answered(server, tmp_path):
    server.script = {"prompt 1": [(500, "x")], "prompt 4": [(400, "no")]}
    made = generator(server.url, retries=1)
    report = generate_rows(made, requests(6), GenerationStore(tmp_path / "g", made.settings))
    assert (report.answered, report.failed, report.resumed) == (4, 2, 0)
    assert str(report).startswith("4 of 6 rows answered")
    assert "1 x status 500 (after 2 tries)" in str(report)
    failures = [json.loads(line) for line in (tmp_path / "g" / "failures.jsonl").read_text().splitlines()]
    assert [row["row_id"] for row in failures] == [101, 104]
    server.script, before = {}, Counter(server.tries)
    report = generate_rows(made, requests(6), GenerationStore(tmp_path / "g", made.settings))
    assert (report.answered, report.failed, report.resumed) == (6, 0, 4)
    assert server.tries - before == {"prompt 1": 1, "prompt 4": 1}
    assert not (tmp_path / "g" / "failures.jsonl").exists()
