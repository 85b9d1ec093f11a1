"""Several servers of one model: they share the work, and when some die no answer is lost and none comes twice."""

import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest

import actor_tune as at
from actor_tune.engines.openai import openai_engine
from actor_tune.engines.respond import respond
from actor_tune.errors import UserError
from actor_tune.judges.asking import CONCURRENCY, DiedError, ask_any
from actor_tune.judges.server import Server
from actor_tune.records.request import at_work
from conftest import make_prompts
from test_cli import run
from test_engines import echo, serving
from test_resume import REQUEST

pytest.importorskip("openai", reason="needs the extra openai")


class QuickServer(Server):
    """With little patience, whatever it is told."""

    def __init__(self, base_url, api_key=None, timeout=None, retries=None):
        super().__init__(base_url, api_key, timeout=30, retries=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("actor_tune.engines.openai.Server", QuickServer)
    monkeypatch.setattr("actor_tune.judges.server.FORM_WAITS", (0.01,))
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


SERVER = """
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

seconds, log, models = float(sys.argv[1]), sys.argv[2], sys.argv[3:]

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send({"object": "list", "data": [{"id": name} for name in models]})

    def do_POST(self):
        text = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"][-1]["content"]
        time.sleep(seconds)
        with open(log, "a") as stream:
            stream.write(text + "\\n")
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

class Many(ThreadingHTTPServer):
    request_queue_size = 64

server = Many(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


class Served:
    """A server in a process of its own."""

    def __init__(self, process, log):
        self.process, self.log = process, log
        self.url = f"http://127.0.0.1:{int(process.stdout.readline())}/v1"

    @property
    def asked(self):
        """What it was about to answer."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def kill_after(self, count):
        """Kill it when it has answered so many, from a thread."""

        def kill():
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and len(self.asked) < count:
                time.sleep(0.005)
            self.process.kill()  # SIGKILL

        thread = threading.Thread(target=kill)
        thread.start()
        return thread


@contextmanager
def served(log, seconds=0.05, models=("m",)):
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(seconds), str(log), *models], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Served(process, log)
        finally:
            process.kill()


def nowhere():
    """The URL of a server that is gone."""
    with serving(echo) as server:
        return server.url


def stored(folder):
    return [json.loads(line) for line in (folder / "responses.jsonl").read_text().splitlines()]


def prompts_file(path, prompts):
    lines = [json.dumps({"prompt": prompt.text, "kind": prompt.kind, "set": prompt.set}) for prompt in prompts]
    path.write_text("\n".join(lines))
    return path


def measured(prompts, folder, *servers, name="m"):
    subject = at.subject(name, engine="openai", base_url=[server.url for server in servers])
    found = at.measure(subject, prompts, work=folder)
    found.save(folder)
    return found


def test_a_server_that_is_killed_half_way_hands_its_prompts_on_and_each_is_answered_once(tmp_path, caplog):
    prompts = make_prompts(40)
    with served(tmp_path / "a") as first, served(tmp_path / "b") as other:
        killer = first.kill_after(20)
        found = measured(prompts, tmp_path / "two", first, other)
        killer.join()
        alone = measured(prompts, tmp_path / "one", other, name="m")
        asked = other.asked
    rows = stored(tmp_path / "two")
    assert Counter(row["prompt"] for row in rows) == Counter(prompt.text for prompt in prompts)
    assert all(row["response"] == f"Sure: {row['prompt']}" for row in rows)
    assert rows == stored(tmp_path / "one")  # in the order of the prompts, with the same verdicts
    assert found.results.sets == alone.results.sets
    assert [found.score(name) for name in ("compliance_rate", "safety_score")] == [
        alone.score(name) for name in ("compliance_rate", "safety_score")
    ]
    (line,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    told = re.fullmatch(
        rf"{first.url} is left out \(no answer after 2 tries \(.*\)\); what it was asked, (\d+) prompts?, goes to .*",
        line,
    )
    handed = int(told[1])
    assert 1 <= handed <= CONCURRENCY
    # What the first was about to say and could not is what the other was asked besides its own.
    both = Counter([*first.asked, *asked[: len(asked) - len(prompts)]])
    assert set(both) == {prompt.text for prompt in prompts}
    assert sum(both.values()) - len(prompts) <= handed


def test_when_all_are_killed_it_is_one_line_and_the_same_command_goes_on_with_others(tmp_path, capsys):
    prompts = make_prompts(20)
    file, folder = prompts_file(tmp_path / "p.jsonl", prompts), tmp_path / "m"

    def command(*urls):
        where = [part for url in urls for part in ("--base-url", url)]
        return run("measure", "m", "--engine", "openai", *where, "--prompts", file, "--output-dir", folder)

    with served(tmp_path / "a") as first, served(tmp_path / "b") as other:
        killers = [first.kill_after(8), other.kill_after(20)]
        assert command(first.url, other.url) == 2
        for killer in killers:
            killer.join()
    kept = stored(folder)
    assert 8 <= len(kept) < len(prompts)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert re.match(rf"error: --base-url ({first.url}|{other.url}): no answer after 2 tries", said)
    assert said.endswith(f"{len(kept)} of 60 answers are kept, and the same command goes on from there")
    assert command(first.url, other.url) == 2  # none is back yet, which costs nothing
    assert stored(folder) == kept
    with served(tmp_path / "c") as third:
        assert command(third.url) == 0  # of several servers another set goes on, also of one
        assert Counter(third.asked) == Counter({prompt.text for prompt in prompts} - {row["prompt"] for row in kept})
    assert Counter(row["prompt"] for row in stored(folder)) == Counter(prompt.text for prompt in prompts)


def test_a_fast_server_takes_more(tmp_path):
    with served(tmp_path / "slow", 0.4) as slow, served(tmp_path / "fast", 0.02) as fast:
        respond(openai_engine([slow.url, fast.url], "m"), make_prompts(40), 9)
        assert len(slow.asked) + len(fast.asked) == 120
        assert len(fast.asked) > 2 * len(slow.asked)
        assert len(slow.asked) >= CONCURRENCY


def test_each_server_has_as_many_requests_under_way_as_one_alone():
    lock, now, most = threading.Lock(), Counter(), Counter()

    def counting(name):
        def reply(path, request):
            if request:
                with lock:
                    now[name] += 1
                    most[name] = max(most[name], now[name])
                time.sleep(0.25)
                with lock:
                    now[name] -= 1
            return echo(path, request)

        return reply

    with serving(counting("a")) as first, serving(counting("b")) as other:
        respond(openai_engine([first.url, other.url], "m", concurrency=3), make_prompts(6), 9)
    assert most == {"a": 3, "b": 3}


@pytest.mark.parametrize("model", ["m", "auto", "x"])
def test_servers_that_list_other_models_are_refused_at_once(tmp_path, model):
    with served(tmp_path / "a") as first, served(tmp_path / "b", models=("m", "x")) as other:
        with pytest.raises(UserError) as raised:
            openai_engine([first.url, other.url], model)
        assert first.asked == other.asked == []
    assert str(raised.value) == (
        f"`base_url={other.url}`: lists m, x; expected m, as {first.url} does; "
        "serve the same model on all, or leave one out"
    )


def test_auto_takes_the_one_model_that_all_list(tmp_path):
    prompts = make_prompts(4)
    with served(tmp_path / "a") as first, served(tmp_path / "b") as other:
        found = respond(openai_engine([first.url, other.url], "auto"), prompts, 9)
    assert [response.text for response in found] == [f"Sure: {prompt.text}" for prompt in prompts]


def test_a_server_that_is_dead_from_the_start_is_left_out_unless_it_is_the_only_one(tmp_path, caplog):
    dead, prompts = nowhere(), make_prompts(3)
    with served(tmp_path / "a") as living:
        found = respond(openai_engine([dead, living.url], "m"), prompts, 9)
        assert len(living.asked) == len(found) == len(prompts)
    (line,) = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(rf"{dead} is left out \(no answer \(.*refused\)\)", line)
    for urls in (dead, [dead], [nowhere(), dead]):
        with pytest.raises(UserError, match=rf"`base_url={dead}`: no answer .*; expected a running server; start it"):
            openai_engine(urls, "m")
    assert len(caplog.records) == 1


@pytest.mark.parametrize("failing", [(500, {}), (503, {}), (429, {}), (200, b"<html>")])
def test_a_server_that_fails_time_and_again_is_left_out_like_a_dead_one(caplog, failing):
    prompts = make_prompts(10)

    def reply(path, request):
        return failing if request else echo(path, request)

    with serving(reply) as bad, serving(echo) as good:
        engine = openai_engine([bad.url, good.url], "only", concurrency=2)
        found = respond(engine, prompts, 9)
        assert [response.text for response in found] == [f"only: {prompt.text}" for prompt in prompts]
        bad.requests.clear()
        respond(engine, prompts[:4], 9)
        assert bad.requests == []  # from then on
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [f"{bad.url} is left out"]


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_that_a_server_refuses_a_request_is_the_users_matter_and_not_its_death(status, caplog):
    def reply(path, request):
        return (status, {"error": {"message": "no egg today"}}) if request else echo(path, request)

    with serving(reply) as bad, serving(echo) as good:
        with pytest.raises(UserError, match=rf"`base_url={bad.url}`: status {status} to .*no egg today"):
            respond(openai_engine([bad.url, good.url], "only"), make_prompts(20), 9)
        assert len(bad.asked()) <= CONCURRENCY
    assert caplog.records == []


def test_the_same_server_twice_or_none_is_refused():
    for urls in (["http://a/v1", "http://a/v1"], ["http://a/v1", "http://b/v1", "http://a/v1/"]):
        with pytest.raises(UserError, match=rf"`base_url={urls[-1]}`: given twice"):
            at.subject("m", engine="openai", base_url=urls)
    with pytest.raises(UserError, match="no `base_url=`"):
        at.subject("m", engine="openai", base_url=[])
    with pytest.raises(UserError, match="`base_url=b`: no http:// or https://"):
        at.subject("m", engine="openai", base_url=["http://a/v1", "b"])


# --- The queue alone


def test_what_a_dead_server_was_asked_goes_first_and_is_counted_when_nothing_is_under_way_there():
    told, asked, gate = [], [], threading.Event()

    def ask(server, item):
        asked.append((server, item))
        if server == "bad":
            gate.wait(5)
            raise DiedError(UserError("bad", "gone", "a server", "start it"))
        gate.set() if item == 9 else time.sleep(0.01)
        return server, item

    def leave_out(server, died, count):
        told.append((server, died.told.found, count))

    found = dict(ask_any(["bad", "good"], ask, range(30), leave_out, 2))
    assert found == {row: ("good", row) for row in range(30)}
    assert told == [("bad", "gone", 2)]
    assert Counter(item for _, item in asked) == Counter([*range(30), *(item for who, item in asked if who == "bad")])
    handed = [item for who, item in asked if who == "bad"]
    order = [item for who, item in asked if who == "good"]
    assert all(order.index(item) < order.index(20) for item in handed)


def test_a_bug_in_one_request_is_raised_last_whatever_others_live():
    def ask(server, item):
        if item == 3:
            raise ZeroDivisionError
        return item

    answers = ask_any("ab", ask, range(100), lambda *_: None, 2)
    rows = []
    with pytest.raises(ZeroDivisionError):
        rows.extend(row for row, _ in answers)
    assert {0, 1, 2} <= set(rows)
    assert len(rows) < 20


# --- Which servers are asked is not what answers depend on


@pytest.mark.parametrize(
    ("begun", "asked", "goes_on"),
    [
        ("http://a/v1", "http://a/v1", True),
        ("http://a/v1", "http://b/v1", False),
        (None, "http://a/v1", False),
        (["http://a/v1", "http://b/v1"], None, False),
        ("http://a/v1", ["http://a/v1", "http://b/v1"], True),
        (["http://a/v1", "http://b/v1"], "http://b/v1", True),
        (["http://a/v1", "http://b/v1"], ["http://c/v1", "http://d/v1", "http://e/v1"], True),
    ],
)
def test_another_set_of_servers_goes_on_and_another_single_one_does_not(tmp_path, begun, asked, goes_on):
    with at_work(tmp_path, replace(REQUEST, base_url=begun)):
        (tmp_path / "responses.jsonl").touch()
    if goes_on:
        with at_work(tmp_path, replace(REQUEST, base_url=asked)):
            return
    with pytest.raises(UserError, match="begun with base_url"), at_work(tmp_path, replace(REQUEST, base_url=asked)):
        pass


def test_addresses_are_kept_sorted_and_a_baseline_of_other_servers_is_compared(tmp_path):
    prompts = make_prompts(3)

    def subject(name, *urls):
        return at.subject(name, engine="openai", base_url=urls)

    with serving(echo) as first, serving(echo) as other, serving(echo) as third:
        high, low = sorted([first.url, other.url], reverse=True)
        before = at.measure(subject("only", high, low), prompts, work=tmp_path / "before")
        before.save(tmp_path / "before")
        earlier = at.EarlierMeasurement.read(tmp_path / "before", lambda name: subject(name, low))
        found = at.measure(subject("only", low, third.url), prompts, baseline=earlier)
        answered = at.answer(subject("only", low, high), prompts)
        again = at.measure(subject("only", third.url, low), prompts, baseline=answered)
        single = at.answer(subject("only", low), prompts)
        with pytest.raises(UserError, match="answers with base_url"):
            at.measure(subject("only", third.url), prompts, baseline=single)
    for folder in ("request.json", "results.json"):
        written = json.loads((tmp_path / "before" / folder).read_text())
        assert written.get("settings", written)["base_url"] == [low, high]
    assert found.results.comparison.sets == again.results.comparison.sets


def test_a_file_of_settings_names_several_servers_or_one(tmp_path, monkeypatch):
    file = prompts_file(tmp_path / "p.jsonl", make_prompts(3))
    with serving(echo) as first, serving(echo) as other:
        for name, value in (("one", first.url), ("two", [first.url, other.url])):
            config = tmp_path / f"{name}.toml"
            config.write_text(f'[measure]\nengine = "openai"\nbase_url = {json.dumps(value)}\n')
            command = ("measure", "only", "--prompts", file, "--output-dir", tmp_path / name)
            assert run(*command, "--config", config) == 0
            again = tmp_path / name / "actor.toml"
            assert run(*command[:-1], tmp_path / f"{name} again", "--config", again) == 0
            assert stored(tmp_path / name) == stored(tmp_path / f"{name} again")
        monkeypatch.setenv("ACTOR_MEASURE_BASE_URL", f"{first.url} {other.url}")
        assert run(*command[:-1], tmp_path / "set", "--engine", "openai") == 0
    assert json.loads((tmp_path / "one" / "request.json").read_text())["base_url"] == first.url
    for name in ("two", "two again", "set"):
        assert json.loads((tmp_path / name / "request.json").read_text())["base_url"] == sorted([first.url, other.url])
