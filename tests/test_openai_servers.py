"""Servers that refuse parameters, filter, fail in every way, or die: no answer is lost, and none is another's."""

import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import actor_tune as at
from actor_tune.engines.openai import openai_engine
from actor_tune.engines.respond import respond
from actor_tune.errors import UserError
from actor_tune.judges.completion import read_completion
from actor_tune.judges.llm import llm_judge
from actor_tune.judges.rows import read_exchanges
from actor_tune.judges.server import Server
from actor_tune.judges.verdict import Exchange
from actor_tune.prompts.prompt import Prompt
from actor_tune.show.measurement import results_table
from actor_tune.show.report import render
from actor_tune.storage.tables import Row
from conftest import make_prompts
from test_cli import run
from test_engines import completion, echo, serving
from test_show import printed

pytest.importorskip("openai", reason="needs the extra openai")


class QuickServer(Server):
    """With little patience, whatever it is told."""

    def __init__(self, base_url, api_key=None, timeout=None, retries=None):
        super().__init__(base_url, api_key, timeout=0.7, retries=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("actor_tune.engines.openai.Server", QuickServer)
    monkeypatch.setattr("actor_tune.judges.choose.Server", QuickServer)
    monkeypatch.setattr("actor_tune.judges.server.FORM_WAITS", (0.01,))
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


def error(message, **fields):
    return {"error": {"message": message, "type": "invalid_request_error", **fields}}


def rows_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def served(server, name="m"):
    return at.subject(name, engine="openai", base_url=server.url)


# --- Parameters that a server does not take

NO_MAX_TOKENS = error(
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    param="max_tokens",
    code="unsupported_parameter",
)
NO_TEMPERATURE = error(
    "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
    param="temperature",
    code="unsupported_value",
)
LIMIT = "with max_completion_tokens in place of max_tokens"
SAMPLED = "without temperature 0, so that its answers are sampled and differ from run to run"


def newer(path, request):
    """Takes neither `max_tokens` nor a temperature of 0, and says one of them at a time."""
    if request and "max_tokens" in request:
        return 400, NO_MAX_TOKENS
    if request and "temperature" in request:
        return 400, NO_TEMPERATURE
    return echo(path, request)


def test_a_newer_server_is_asked_otherwise_for_all_prompts_and_that_is_said_once(caplog):
    prompts = make_prompts(30)
    with serving(newer) as server:
        answers = list(openai_engine(server.url, "only", concurrency=4)(prompts, 9))
    assert sorted(answer.row for answer in answers) == list(range(len(prompts)))
    assert {answer.text for answer in answers} == {f"only: {prompt.text}" for prompt in prompts}
    assert {answer.asked_otherwise for answer in answers} == {(LIMIT, SAMPLED)}
    asked = [request for path, request, _ in server.requests if path.endswith("completions")]
    refused = [request for request in asked if request.keys() & {"max_tokens", "temperature"}]
    assert 2 <= len(refused) <= 2 * 4  # what was under way when it was found out
    assert all(request["max_completion_tokens"] == 9 for request in asked if request not in refused)
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == [
        f"{server.url} does not take max_tokens: only is asked {LIMIT}",
        f"{server.url} does not take temperature: only is asked {SAMPLED}",
    ]


@pytest.mark.parametrize(
    ("status", "body", "parameter"),
    [
        (400, NO_MAX_TOKENS, "max_tokens"),
        (400, NO_TEMPERATURE, "temperature"),
        (400, error("'temperature' is deprecated for this model."), "temperature"),
        (422, {"error": "Input validation error: `temperature` must be strictly positive"}, "temperature"),
        (
            422,
            {
                "detail": [
                    {"type": "extra_forbidden", "loc": ["body", "temperature"], "msg": "Extra inputs", "input": 0}
                ]
            },
            "temperature",
        ),
        (400, error("Unrecognized request argument supplied: max_tokens", param=None), "max_tokens"),
    ],
)
def test_whatever_words_refuse_a_parameter_only_that_one_is_changed(status, body, parameter):
    def reply(path, request):
        return (status, body) if request and parameter in request else echo(path, request)

    with serving(reply) as server:
        (answer,) = openai_engine(server.url, "m")(make_prompts(1)[:1], 9)
    assert answer.text.startswith("m: ")
    last = server.requests[-1][1]
    expected = {"temperature": {"max_tokens": 9}, "max_tokens": {"max_completion_tokens": 9, "temperature": 0}}
    assert {name: value for name, value in last.items() if name not in ("model", "messages")} == expected[parameter]


@pytest.mark.parametrize(
    "body",
    [
        error("max_tokens is too large: 9. This model supports at most 4 completion tokens", param="max_tokens"),
        error("'max_tokens' or 'max_completion_tokens' is too large: 9. The maximum context length is 8 tokens"),
        error("`max_tokens` must be at most 8"),
        error("Unrecognized request argument supplied: chat_template_kwargs", param=None),
        error("Unsupported value: 'messages[0].role' does not support 'system'", param="messages[0].role"),
        error("Unsupported content: 'what temperature'", param="messages"),
        error("no egg today"),
        "nothing",
        [],
    ],
)
def test_any_other_refusal_stays_one_line_and_is_asked_once(body):
    def reply(path, request):
        return (400, body) if request else echo(path, request)

    with serving(reply) as server, pytest.raises(UserError, match=r"status 400 to .*; do what the server says$"):
        list(openai_engine(server.url, "m", chat_template_kwargs={"a": 1})(make_prompts(1)[:1], 9))
    assert len(server.asked()) == 1


def test_a_server_that_takes_neither_name_of_the_limit_is_not_asked_for_ever():
    def reply(path, request):
        named = next((name for name in ("max_tokens", "max_completion_tokens") if request and name in request), None)
        return (400, error(f"Unsupported parameter: '{named}'", param=named)) if named else echo(path, request)

    with serving(reply) as server, pytest.raises(UserError, match="Unsupported parameter: 'max_completion_tokens'"):
        list(openai_engine(server.url, "m")(make_prompts(1)[:1], 9))
    assert len(server.asked()) == 2


def test_how_a_server_was_asked_stands_in_the_results_also_of_answers_that_were_kept(tmp_path):
    prompts, spent = make_prompts(4), []

    def dies(path, request):
        if request and len(spent) >= 6:
            return 400, error("no more")
        status, body = newer(path, request)
        spent.extend([1] * (status == 200 and request is not None))
        return status, body

    with serving(lambda path, request: current(path, request)) as server:
        current = dies
        with pytest.raises(UserError, match=r"no more.*; \d+ of 12 answers are kept, and the same command goes on"):
            at.measure(served(server), prompts, work=tmp_path / "a")
        current = echo  # another version of it, which takes all
        found = at.measure(served(server), prompts, work=tmp_path / "a")
        plain = at.measure(served(server), prompts)
    told = [f"m was asked {LIMIT}", f"m was asked {SAMPLED}"]
    assert found.results.asked_otherwise == told
    found.save(tmp_path / "a")
    assert json.loads((tmp_path / "a" / "results.json").read_text())["asked_otherwise"] == told
    counts = Counter(tuple(row.get("asked_otherwise", [])) for row in rows_of(tmp_path / "a" / "responses.jsonl"))
    assert set(counts) == {(), (LIMIT, SAMPLED)}
    assert all(line in " ".join(printed(results_table(found.results)).split()) for line in told)
    assert f"{told[0]}; {told[1]}." in unescape(render([tmp_path / "a"]))
    assert plain.results.asked_otherwise == []
    plain.save(tmp_path / "b")
    assert "asked otherwise" not in render([tmp_path / "b"])


def test_how_a_judge_was_asked_stands_in_the_results(tmp_path):
    def judging(path, request):
        status, body = newer(path, request)
        return status, completion('{"verdict": "compliance"}') if status == 200 and request else body

    with serving(echo) as server, serving(judging) as other:
        judges = {"j": at.judge_by_name("openai=j", base_url=other.url)}
        found = at.measure(served(server), make_prompts(1), judges=judges)
    assert found.results.asked_otherwise == [f"judge j was asked {LIMIT}", f"judge j was asked {SAMPLED}"]


def test_a_model_that_thinks_unseen_is_asked_again_with_more_tokens():
    def reply(path, request):
        if request and request["max_tokens"] < 100:
            hidden = {"completion_tokens_details": {"reasoning_tokens": request["max_tokens"]}}
            return 200, completion("", "length") | {"usage": hidden}
        return echo(path, request)

    prompt = make_prompts(1)[:1]
    with serving(reply) as server:
        (answer,) = respond(openai_engine(server.url, "m", max_reasoning_tokens=100), prompt, 9)
        (cut,) = respond(openai_engine(server.url, "m", max_reasoning_tokens=50), prompt, 9)
    assert (answer.text, answer.finished) == (f"m: {prompt[0].text}", True)
    assert cut.only_thought


# --- What a provider's filter stops


def azure(code):
    inner = {"innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {}}}}
    return error("The response was filtered", param="prompt", code=code, status=400, **inner)


@pytest.mark.parametrize(
    "filtering",
    [
        (200, completion(None, "content_filter")),
        (200, completion("I'm sor", "content_filter")),
        (400, azure("content_filter")),
        (400, error("Invalid prompt: your prompt was flagged", param=None, code="invalid_prompt")),
    ],
)
def test_what_a_filter_stops_is_unscored_for_that_and_the_run_goes_on(tmp_path, filtering):
    def reply(path, request):
        return filtering if request and "thing 19" in request["messages"][-1]["content"] else echo(path, request)

    with serving(reply) as server:
        found = at.measure(served(server), make_prompts(4), work=tmp_path)
    stopped = [row for row in found.responses if row.filtered]
    assert ["thing 19" in row.prompt for row in stopped] == [True] * 3
    assert {(row.verdict, row.reason) for row in stopped} == {("unscored", "the provider's content filter stopped it")}
    assert [(item.n, item.unscored, item.garbled) for item in found.results.sets] == [(3, 1, 0)] * 3
    assert found.results.damage["garbled_share"] == 0
    assert len(server.asked()) == 12
    kept = respond(lambda *_: iter(()), make_prompts(4), 9, tmp_path / "responses.jsonl")
    for judged in (kept, read_exchanges([Row("f", 1, row) for row in rows_of(tmp_path / "responses.jsonl")])):
        unscored = [verdict.reason for verdict in at.judge(judged) if verdict.outcome == "unscored"]
        assert unscored == ["the provider's content filter stopped it"] * 3


def test_a_verdict_that_a_filter_stops_is_unscored_for_that():
    replies = {"a": (200, completion(None, "content_filter")), "b": (400, azure("content_filter"))}

    def reply(path, request):
        return replies["a" if "AAA" in request["messages"][-1]["content"] else "b"]

    with serving(reply) as server:
        verdicts = llm_judge(QuickServer(server.url), "j")([Exchange("p", "AAA is so"), Exchange("p", "It is so.")])
    assert {verdict.reason for verdict in verdicts} == {"the content filter of the judge's provider stopped it"}


# --- Servers that fail


@contextmanager
def raw(reply):
    """A server whose `reply` (handler, last turn, how often it was asked) writes what it likes to the connection."""
    tries, lock = Counter(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            text = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"][-1]["content"]
            with lock:
                tries[text] += 1
            if reply(self, text, tries[text]) is None:
                self.close_connection = True

        def do_GET(self):
            send(self, 200, {"object": "list", "data": [{"id": "m"}]})

        def log_message(self, *_arguments):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    http.url, http.tries = f"http://127.0.0.1:{http.server_port}/v1", tries
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield http
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def answer_bytes(status, body, length=None, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"content-type": "application/json", "content-length": len(content) if length is None else length}
    head = "".join(f"{name}: {value}\r\n" for name, value in (lines | headers).items())
    return f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + content


def send(handler, status, body, times=1, **more):
    """Keeps the connection open, as servers do."""
    handler.wfile.write(answer_bytes(status, body, **more) * times)
    return True


def right(handler, text, times=1):
    return send(handler, 200, completion(f"echo {text}"), times)


RIGHT = completion("echo")
FAILURES = {
    "closes": lambda handler: None,
    "truncated": lambda handler: send(handler, 200, RIGHT, length=9999) and None,
    "length too small": lambda handler: send(handler, 200, RIGHT, length=20),
    "length is no number": lambda handler: send(handler, 200, RIGHT, length="much") and None,
    "no HTTP": lambda handler: handler.wfile.write(b"hello\r\n\r\n") and None,
    "html": lambda handler: send(handler, 200, b"<html>", **{"content-type": "text/html"}),
    "not JSON": lambda handler: send(handler, 200, b'{"choices": ['),
    "not UTF-8": lambda handler: send(handler, 200, b'"\xff\xfe"'),
    "not gzip": lambda handler: send(handler, 200, b"plain", **{"content-encoding": "gzip"}),
    "empty": lambda handler: send(handler, 200, b""),
    "no content": lambda handler: send(handler, 204, b""),
    "no choices": lambda handler: send(handler, 200, {"id": "1"}),
    "wrong types": lambda handler: send(handler, 200, {"choices": {"message": 5}}),
    "content of parts": lambda handler: send(handler, 200, completion([{"type": "text", "text": "a"}])),
    "fails half way": lambda handler: send(handler, 200, completion("Sure, h", "error")),
    "error in a success": lambda handler: send(handler, 200, error("overloaded")),
    "429": lambda handler: send(handler, 429, error("slow down")),
    "429 that says when": lambda handler: send(handler, 429, error("slow down"), **{"retry-after": "0.01"}),
    "500": lambda handler: send(handler, 500, b""),
    "503": lambda handler: send(handler, 503, b"<html>", **{"retry-after": "soon"}),
    "hangs": lambda handler: time.sleep(1),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_every_prompt_is_answered_once_whatever_fails_the_first_time(tmp_path, failure):
    prompts = make_prompts(2)

    def reply(handler, text, tries):
        return FAILURES[failure](handler) if tries == 1 else right(handler, text)

    with raw(reply) as server:
        found = respond(openai_engine(server.url, "m", concurrency=3), prompts, 9, tmp_path / "r.jsonl")
        assert set(server.tries.values()) == {2}
    assert [response.text for response in found] == [f"echo {prompt.text}" for prompt in prompts]
    rows = rows_of(tmp_path / "r.jsonl")
    assert sorted(row["prompt"] for row in rows) == sorted(prompt.text for prompt in prompts)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_server_that_fails_for_good_is_one_line_and_the_same_call_goes_on(tmp_path, failure):
    prompts, mended = make_prompts(3), threading.Event()
    well = {prompt.text for prompt in prompts[:5]}

    def reply(handler, text, tries):
        return right(handler, text) if text in well or mended.is_set() else FAILURES[failure](handler)

    store = tmp_path / "r.jsonl"
    with raw(reply) as server:
        with pytest.raises(UserError) as raised:
            respond(openai_engine(server.url, "m", concurrency=2), prompts, 9, store, portion=None)
        message = str(raised.value)
        assert re.search(r"; 5 of 9 answers are kept, and the same command goes on from there$", message), message
        assert message.startswith(f"`base_url={server.url}`: ")
        assert "\n" not in message
        assert {row["prompt"] for row in rows_of(store)} == well
        assert max(server.tries.values()) == 2
        mended.set()
        found = respond(openai_engine(server.url, "m", concurrency=2), prompts, 9, store, portion=None)
        assert all(server.tries[text] == 1 for text in well)
    assert [response.text for response in found] == [f"echo {prompt.text}" for prompt in prompts]
    assert Counter(row["prompt"] for row in rows_of(store)) == Counter(prompt.text for prompt in prompts)


def test_an_answer_that_comes_twice_is_not_taken_for_that_to_the_next_prompt():
    prompts = make_prompts(4)
    with raw(lambda handler, text, tries: right(handler, text, times=2)) as server:
        found = respond(openai_engine(server.url, "m", concurrency=1), prompts, 9)
    assert [response.text for response in found] == [f"echo {prompt.text}" for prompt in prompts]


def test_a_judge_that_has_no_time_stops_the_run_and_the_answers_are_kept(tmp_path):
    prompts, busy = make_prompts(2), [True]

    def judging(path, request):
        return (503, error("busy")) if busy else (200, completion('{"verdict": "refusal", "reason": "no"}'))

    def measure():
        judges = {"j": at.judge_by_name("openai=j", base_url=other.url)}
        return at.measure(served(server), prompts, judges=judges, work=tmp_path / "a")

    with serving(echo) as server, serving(judging) as other:
        with pytest.raises(UserError, match=r"503, 2 times .*all answers are kept, and the same command goes on"):
            measure()
        busy.clear()
        server.requests.clear()
        found = measure()
        assert server.asked() == []
    assert {row.verdict for row in found.responses} == {"refusal"}


def test_a_judge_that_hangs_leaves_an_answer_unscored_and_says_how_often_it_was_asked():
    with raw(lambda handler, text, tries: time.sleep(1)) as server:
        (verdict,) = llm_judge(QuickServer(server.url), "j")([Exchange("p", "It is so.")])
    assert (verdict.outcome, verdict.reason) == ("unscored", "no reply within 0.7 s, 2 times")


def test_a_server_that_wants_an_hour_is_not_said_to_have_been_asked_often():
    with (
        raw(lambda handler, text, tries: send(handler, 429, error("no"), **{"retry-after": "3600"})) as server,
        pytest.raises(UserError, match=r"status 429 after 1 try .*; try again later$"),
    ):
        list(openai_engine(server.url, "m")(make_prompts(1)[:1], 9))
    assert list(server.tries.values()) == [1]


SERVER = """
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send({"object": "list", "data": [{"id": "m"}]})

    def do_POST(self):
        text = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"][-1]["content"]
        time.sleep(0.1)
        message = {"role": "assistant", "content": "Sure: " + text}
        self.send({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def send(self, body):
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def process(port=0):
    """A server in a process of its own, and its port."""
    command = [sys.executable, "-c", SERVER, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server, int(server.stdout.readline())
        finally:
            server.kill()


def test_a_server_that_is_killed_half_way_costs_no_answer_and_the_same_command_ends_it(tmp_path, capsys):
    prompts = make_prompts(16)
    file, store = tmp_path / "p.jsonl", tmp_path / "m" / "responses.jsonl"
    lines = [json.dumps({"prompt": prompt.text, "kind": prompt.kind, "set": prompt.set}) for prompt in prompts]
    file.write_text("\n".join(lines))

    def command(port):
        url = f"http://127.0.0.1:{port}/v1"
        return run(
            "measure", "m", "--engine", "openai", "--base-url", url, "--prompts", file, "--output-dir", store.parent
        )

    def kill(server):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not (store.exists() and store.read_bytes().count(b"\n") >= 16):
            time.sleep(0.01)
        server.send_signal(signal.SIGKILL)

    with process() as (server, port):
        killer = threading.Thread(target=kill, args=(server,))
        killer.start()
        status = command(port)
        killer.join()
    kept = rows_of(store)
    assert status == 2
    assert 16 <= len(kept) < len(prompts)
    said = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(said) == 1
    assert said[0].endswith(
        f"start it, or correct the URL; {len(kept)} of 48 answers are kept, and the same command goes on from there"
    )
    assert command(port) == 2  # it is not back yet, which costs nothing
    assert rows_of(store) == kept
    with process(port):
        assert command(port) == 0
    rows = rows_of(store)
    assert Counter(row["prompt"] for row in rows) == Counter(prompt.text for prompt in prompts)
    assert all(row["response"] == f"Sure: {row['prompt']}" for row in rows)
    assert {row["prompt"] for row in kept} <= {row["prompt"] for row in rows}


# --- Secrets

KEY = "sk-canary-0123456789abcdef"


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 422, 429, 500, 503])
@pytest.mark.parametrize("who", ["engine", "judge"])
def test_the_key_is_in_no_file_and_no_message_though_the_server_says_it(
    tmp_path, monkeypatch, capsys, caplog, status, who
):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"prompt": one.text, "kind": one.kind, "set": one.set}) for one in make_prompts(3)]
    (tmp_path / "p.jsonl").write_text("\n".join(rows))

    def tells(path, request):
        return (status, error(f"{'x' * 40} wrong key {KEY} of it")) if request else echo(path, request)

    with serving(echo) as good, serving(tells) as bad:
        model, judge = (bad, good) if who == "engine" else (good, bad)
        where = ("--engine", "openai", "--base-url", model.url, "--prompts", "p.jsonl", "--output-dir", "m")
        judged = ("--judge", "openai=j", "--judge-base-url", judge.url)
        run("measure", "m", *where, *judged)
        assert any(key == f"Bearer {KEY}" for _, _, key in bad.requests)
    streams = capsys.readouterr()
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 2
    for text in (streams.out, streams.err, caplog.text, *written):
        assert KEY[:12] not in text
        assert str(tmp_path) not in text
    assert "(the key)" in " ".join([streams.err, *written])  # what it said is there, without the key


@pytest.mark.parametrize("key", [f"{KEY}\nX-Other: 1", f"{KEY}\u00fc"])
def test_a_key_that_no_header_may_have_is_named_without_it(key):
    with serving(echo) as server, pytest.raises(UserError) as raised:
        openai_engine(server.url, "m", api_key=key)
    assert KEY[:12] not in str(raised.value)
    assert "OPENAI_API_KEY" in str(raised.value)


def test_a_line_end_behind_the_key_does_no_harm(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    with serving(echo) as server:
        openai_engine(server.url, "m")
    assert server.requests[0][2] == f"Bearer {KEY}"


@pytest.mark.parametrize("url", [f"http://me:{KEY}@127.0.0.1:9/v1", f"http://127.0.0.1:9/v1?key={KEY}"])
def test_a_url_with_a_secret_is_refused_before_anything_is_written(tmp_path, capsys, url):
    where = ("--engine", "openai", "--base-url", url, "--output-dir", tmp_path / "m")
    assert run("measure", "m", *where) == 2
    assert run("measure", "m", *where[:2], "--judge", "openai=j", "--judge-base-url", url, *where[4:]) == 2
    streams = capsys.readouterr()
    assert KEY[:12] not in streams.out + streams.err
    assert "a key in OPENAI_API_KEY" in streams.err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://h:no/v1", "http://h:99999/v1", "http:///v1", "http://1.2.3.999/v1"]
)
def test_what_is_no_url_is_one_line(url):
    with pytest.raises(UserError, match=re.escape(url)):
        openai_engine(url, "m")


# --- Whatever a body may be


def mutated(random, body):
    """`body`, a chat completion, with one thing wrong: in its structure, or in its bytes."""
    value = json.loads(json.dumps(body))
    values = [None, True, 5, -1e300, "x", "\ud83d", "", [], {}, [5], {"a": 1}, [[[]]], "</think>", "content_filter"]
    if random.random() < 0.5:
        places = [(value, key) for key in value]
        for holder, key in places:
            inner = holder[key]
            places += [(inner, name) for name in (inner if isinstance(inner, dict) else range(len(inner or "")))]
            places = [(one, name) for one, name in places if isinstance(one, dict | list)]
        holder, key = random.choice(places)
        if random.random() < 0.3:
            del holder[key]
        else:
            holder[key] = random.choice(values)
        return json.dumps(value).encode()
    content = bytearray(json.dumps(value).encode())
    for _ in range(random.randint(1, 3)):
        at_, way = random.randrange(len(content)), random.randrange(5)
        if way == 0:
            content[at_] = random.randrange(256)
        elif way == 1:
            del content[at_ : at_ + random.randint(1, 20)]
        elif way == 2:
            content[at_:at_] = content[at_ : at_ + 30]
        elif way == 3:
            content[at_:at_] = random.choice([b"[" * 3000, b"9" * 5000, b"\0", b"NaN", b"\\u0000", b'"', b"}"])
        else:
            del content[at_ + 1 :]
    return bytes(content)


def caught(ask):
    """What `ask` gives, or else what its `UserError` says."""
    try:
        return ask(), None
    except UserError as error:
        return None, str(error)


def test_two_hundred_broken_bodies_are_answers_or_one_line(tmp_path):
    chance, outcomes, body = random.Random(0), Counter(), b""
    whole = completion("I think so.", reasoning_content="Hm.") | {
        "usage": {"completion_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 1}}
    }

    def reply(handler, text, tries):
        return send(handler, 200, body)

    with raw(reply) as server:
        engine = openai_engine(server.url, "m")
        for number in range(200):
            body = mutated(chance, whole)
            prompt, store = [Prompt(f"p{number}", "harmless", "s")], tmp_path / f"{number}.jsonl"
            begun = time.monotonic()
            response, mistake = caught(lambda prompt=prompt, store=store: respond(engine, prompt, 9, store)[0])
            if mistake is None:
                assert respond(engine, prompt, 9, store) == [response]  # it could be stored, and read again
                at.judge([response])
            else:
                assert "no chat completion came back" in mistake
                assert mistake.endswith("0 of 1 answers are kept, and the same command goes on from there")
                assert "\n" not in mistake
            outcomes[mistake is None] += 1
            assert time.monotonic() - begun < 5
        assert set(server.tries.values()) <= {1, 2, 4}  # once; again where it is no completion, or thought too long
    assert min(outcomes[True], outcomes[False]) > 40, outcomes


def test_a_whole_body_is_read_as_it_is():
    reply = read_completion(json.dumps(completion("So.", "length", reasoning="Hm.")).encode())
    assert (reply.text, reply.finished, reply.reasoning, reply.filtered) == ("So.", False, "Hm.", False)
    assert not reply.asked_otherwise
