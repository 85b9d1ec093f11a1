import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from actor_tune.engines import local as module
from actor_tune.engines.choose import subject
from actor_tune.engines.local import local_engine
from actor_tune.engines.openai import openai_engine
from actor_tune.engines.vllm import vllm_engine
from actor_tune.errors import UserError
from actor_tune.judges.server import RETRIES
from actor_tune.models.chat import encode
from actor_tune.models.load import load
from actor_tune.models.placement import Placement
from actor_tune.prompts.prompt import Prompt, with_system_prompt
from actor_tune.prompts.starter import starter
from conftest import make_model


def texts(engine, prompts, max_new_tokens):
    """Answers in the order of the prompts, each of which must have exactly one."""
    answers = list(engine(prompts, max_new_tokens))
    assert sorted(answer.row for answer in answers) == list(range(len(prompts)))
    return [answer.text for answer in sorted(answers, key=lambda answer: answer.row)]


def greedy(chat_model, token_ids, steps):
    """Greedy decoding one prompt and one whole forward pass at a time: the new tokens, the ending one included."""
    tokens = list(token_ids)
    for _ in range(steps):
        tokens.append(int(chat_model.model(torch.tensor([tokens])).logits[0, -1].argmax()))
        if tokens[-1] == chat_model.tokenizer.eos_token_id:
            break
    return tokens[len(token_ids) :]


def test_local_answers_are_greedy(any_family, prompts):
    prompts = [*prompts, *with_system_prompt(prompts[:2], "Be kind.")]
    token_ids = encode(any_family.tokenizer, prompts)
    found = texts(local_engine(any_family, 7), prompts, 5)
    for row in (0, 13, 35, 37):
        expected = any_family.tokenizer.decode(greedy(any_family, token_ids[row], 5), skip_special_tokens=True)
        assert found[row] == expected


def test_a_local_answer_is_finished_where_the_model_ended_it(chat_model, prompts):
    token_ids = encode(chat_model.tokenizer, prompts)
    # Whatever the first answer has third is made the end, so that it ends there and others do not.
    end = greedy(chat_model, token_ids[0], 5)[2]
    chat_model.model.generation_config.eos_token_id = [end, 257]
    expected = [end in greedy(chat_model, ids, 5) or 257 in greedy(chat_model, ids, 5) for ids in token_ids]
    answers = sorted(local_engine(chat_model, 5)(prompts, 5), key=lambda answer: answer.row)
    assert [answer.finished for answer in answers] == expected
    assert {True, False} == set(expected)


def test_a_model_without_an_end_never_finishes(chat_model, prompts):
    chat_model.model.generation_config.eos_token_id = None
    assert not any(answer.finished for answer in local_engine(chat_model, None)(prompts[:3], 2))


def test_sampling_settings_of_the_checkpoint_are_not_used(chat_model, prompts):
    plain = texts(local_engine(chat_model, None), prompts[:4], 5)
    chat_model.model.generation_config.do_sample = True
    chat_model.model.generation_config.temperature = 5.0
    chat_model.model.generation_config.repetition_penalty = 9.0
    chat_model.model.generation_config.no_repeat_ngram_size = 1
    assert texts(local_engine(chat_model, None), prompts[:4], 5) == plain


def test_answers_come_before_all_prompts_are_answered(chat_model, prompts, monkeypatch):
    end = greedy(chat_model, encode(chat_model.tokenizer, prompts[:1])[0], 5)[2]
    chat_model.model.generation_config.eos_token_id = [end]
    passes = []
    chat_model.model.register_forward_pre_hook(lambda *_: passes.append(1))
    answers = local_engine(chat_model, 64)(prompts, 40)
    assert next(answers).finished
    begun = len(passes)
    assert not torch.is_inference_mode_enabled()
    rest = list(answers)
    assert len(rest) == len(prompts) - 1
    assert len(passes) > begun + 20


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        torch.OutOfMemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
    ],
)
@pytest.mark.parametrize("family", ["llama", "gemma2"])  # gemma2 is answered batch by batch
def test_out_of_memory_halves_the_batch_and_goes_on(prompts, caplog, error, family):
    chat_model = make_model(family)
    expected = texts(local_engine(chat_model, None), prompts, 3)
    sizes = []

    def scarce(_module, _arguments, keywords):
        if len(keywords["input_ids"]) > 10:
            sizes.append(len(keywords["input_ids"]))
            raise error

    chat_model.model.register_forward_pre_hook(scarce, with_kwargs=True)
    assert texts(local_engine(chat_model, 32), prompts, 3) == expected
    assert sizes == [32, 16]
    assert "going on with 8 prompts at a time" in caplog.text


def test_out_of_memory_half_way_asks_no_answered_prompt_again(chat_model, prompts):
    chat_model.model.generation_config.eos_token_id = [
        greedy(chat_model, encode(chat_model.tokenizer, prompts[:1])[0], 5)[2]
    ]
    expected = texts(local_engine(chat_model, None), prompts, 12)
    until_failure = 0

    def scarce(*_):
        nonlocal until_failure
        until_failure -= 1
        if until_failure == 0:
            raise torch.OutOfMemoryError

    chat_model.model.register_forward_pre_hook(scarce)
    for until_failure in range(1, 18, 4):
        assert texts(local_engine(chat_model, 16), prompts, 12) == expected
        assert until_failure <= 0


@pytest.mark.parametrize(("error", "size"), [(torch.OutOfMemoryError("out"), 1), (RuntimeError("a bug"), 32)])
def test_out_of_memory_with_a_single_prompt_and_other_errors_are_raised(chat_model, prompts, error, size):
    def never(*_):
        raise error

    chat_model.model.register_forward_pre_hook(never)
    with pytest.raises(RuntimeError, match=str(error)):
        list(local_engine(chat_model, size)(prompts, 3))


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_long_prompts_go_in_smaller_batches(prompts, monkeypatch, family):
    chat_model = make_model(family)
    asked = [*prompts, Prompt("long " * 20, "harmless", "s")]
    list(local_engine(chat_model)(asked, 3))  # after it, what this model can do has been tried
    shapes = []

    def watched(_module, _arguments, keywords):
        ids, cache = keywords["input_ids"], keywords.get("past_key_values")
        shapes.append((len(ids), ids.shape[1] + (cache.get_seq_length() if cache else 0)))

    chat_model.model.register_forward_pre_hook(watched, with_kwargs=True)
    monkeypatch.setattr(module, "AUTO_BATCH_TOKENS", 200)
    found = texts(local_engine(chat_model, None), asked, 3)
    assert max(tokens for _, tokens in shapes) > 100
    assert max(rows for rows, _ in shapes) >= 5
    assert all(rows * tokens <= 200 for rows, tokens in shapes)
    shapes.clear()
    assert texts(local_engine(chat_model, 64), asked, 3) == found
    assert max(rows for rows, _ in shapes) > 30


class Server:
    """A server on loopback whose `reply` (path, request) makes (status, body); it counts and keeps the requests."""

    def __init__(self, reply):
        self.requests = []
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler):  # noqa: N805
                body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
                request = json.loads(body) if body else None
                with lock:
                    self.requests.append((handler.path, request, handler.headers.get("authorization")))
                status, reply_body = reply(handler.path, request)
                content = reply_body if isinstance(reply_body, bytes) else json.dumps(reply_body).encode()
                handler.send_response(status)
                handler.send_header("content-type", "application/json")
                handler.send_header("content-length", str(len(content)))
                handler.send_header("retry-after-ms", "1")  # so that no test waits for its tries
                handler.end_headers()
                handler.wfile.write(content)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def asked(self):
        """The last turn of each chat request."""
        return [
            request["messages"][-1]["content"] for path, request, _ in self.requests if path.endswith("completions")
        ]


@contextmanager
def serving(reply):
    server = Server(reply)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        thread.join()
        server.http.server_close()


def completion(content, finish_reason="stop", **message):
    turn = {"role": "assistant", "content": content, **message}
    return {
        "id": "1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": turn, "finish_reason": finish_reason}],
    }


def echo(path, request):
    if path == "/v1/models":
        return 200, {"object": "list", "data": [{"id": "only", "object": "model"}]}
    return 200, completion(f"{request['model']}: {request['messages'][-1]['content']}")


@pytest.fixture
def openai(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return pytest.importorskip("openai", reason="needs the extra openai")


@pytest.mark.parametrize("model", [None, "auto", "named"])
def test_a_server_is_asked_greedily_with_the_whole_conversation(openai, prompts, model):
    asked = with_system_prompt(prompts, "Be kind.")
    with serving(echo) as server:
        found = texts(openai_engine(server.url, model), asked, 9)
    name = "named" if model == "named" else "only"
    assert found == [f"{name}: {prompt.text}" for prompt in prompts]
    chats = [request for path, request, _ in server.requests if path == "/v1/chat/completions"]
    assert all(chat["temperature"] == 0 and chat["max_tokens"] == 9 and chat["model"] == name for chat in chats)
    assert all(chat["messages"][0] == {"role": "system", "content": "Be kind."} for chat in chats)


def test_the_key_is_the_one_given_else_that_of_the_environment(openai, prompts, monkeypatch):
    with serving(echo) as server:
        openai_engine(server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
        openai_engine(server.url)
        openai_engine(server.url, api_key="given")
    assert [key for _, _, key in server.requests] == ["Bearer none", "Bearer from-environment", "Bearer given"]


def test_answers_come_while_others_are_still_awaited(openai, prompts):
    release = threading.Event()

    def reply(path, request):
        if path.endswith("completions") and request["messages"][-1]["content"] == prompts[0].text:
            assert release.wait(30)
        return echo(path, request)

    with serving(reply) as server:
        answers = openai_engine(server.url, concurrency=2)(prompts[:5], 3)
        first = [next(answers).row for _ in range(4)]
        release.set()
        assert sorted(first) == [1, 2, 3, 4]
        assert [answer.row for answer in answers] == [0]


def test_empty_cut_and_declined_answers(openai):
    replies = {
        "empty": completion(None),
        "cut": completion("and th", "length"),
        "declined": completion(None, refusal="No."),
        "broken": completion("half \ud83d of a pair"),
    }
    prompts = [Prompt(name, "harmless", "s") for name in replies]
    with serving(lambda path, request: (200, replies[request["messages"][-1]["content"]] if request else {})) as server:
        answers = sorted(openai_engine(server.url, "m")(prompts, 3), key=lambda answer: answer.row)
    assert [answer.text for answer in answers] == ["", "and th", "No.", "half ? of a pair"]
    assert [answer.finished for answer in answers] == [True, False, True, True]


def test_a_busy_server_is_asked_again(openai, prompts):
    seen = set()

    def reply(path, request):
        text = request and request["messages"][-1]["content"]
        if text in seen or not text:
            return echo(path, request)
        seen.add(text)
        return (429, {"error": {"message": "slow down"}}) if len(seen) % 2 else (503, b"")

    with serving(reply) as server:
        found = texts(openai_engine(server.url, "m"), prompts, 3)
    assert found == [f"m: {prompt.text}" for prompt in prompts]
    assert len(server.asked()) == 2 * len(prompts)


def test_a_server_that_fails_for_good_is_a_mistake_that_says_so(openai, prompts):
    with (
        serving(lambda path, request: (500, b"all\nwrong")) as server,
        pytest.raises(
            UserError, match=rf"{server.url}`: status 500 after {RETRIES + 1} tries \(all wrong\); .*try again later"
        ),
    ):
        list(openai_engine(server.url, "m")(prompts[:1], 3))
    assert len(server.asked()) == RETRIES + 1


def test_a_refused_request_stops_the_run_once_and_shows_what_the_server_says(openai, prompts):
    def reply(path, request):
        return 404, {"error": {"message": "no model `m`, only `n`"}}

    with (
        serving(reply) as server,
        pytest.raises(UserError, match=r"status 404 to .*no model `m`, only `n`.*; expected an answer of the model m"),
    ):
        list(openai_engine(server.url, "m", concurrency=1)(prompts, 3))
    assert len(server.asked()) < len(prompts)


def test_answers_under_way_are_kept_when_another_fails(openai, prompts):
    release = threading.Event()

    def reply(path, request):
        if request and request["messages"][-1]["content"] == prompts[0].text:
            assert release.wait(30)
            return echo(path, request)
        release.set()
        return 400, {"error": {"message": "no"}}

    with serving(reply) as server:
        answers = openai_engine(server.url, "m", concurrency=2)(prompts[:2], 3)
        assert next(answers).text == f"m: {prompts[0].text}"
        with pytest.raises(UserError, match="status 400"):
            next(answers)


def test_nothing_listening_is_named_with_the_next_step(openai):
    with serving(echo) as server:
        url = server.url
    with pytest.raises(
        UserError, match=rf"`base_url={url}`: no answer \(.*refused\); expected a running server; start it"
    ):
        openai_engine(url, "m")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "vlm"}, "`engine=vlm`: no such engine; expected one of transformers, vllm, openai"),
        ({"engine": "openai"}, "`engine=openai`: no `base_url=`"),
        ({"base_url": "http://x/v1"}, "`base_url=http://x/v1`: `engine=transformers`; expected `engine=openai`"),
        ({"engine": "vllm", "base_url": "http://x/v1"}, "`base_url=http://x/v1`: `engine=vllm`"),
        ({"engine": "vllm", "placement": Placement(offload="stream")}, "`offload=`: `engine=vllm`"),
        (
            {"engine": "openai", "base_url": "http://x/v1", "placement": Placement(dtype="float32")},
            "`dtype=`: `engine=",
        ),
    ],
)
def test_a_subject_that_would_be_asked_otherwise_than_it_says_is_refused(given, message):
    with pytest.raises(UserError) as raised:
        subject("m", **given)
    assert message in str(raised.value)


def test_a_url_without_its_scheme_is_refused():
    with pytest.raises(UserError, match="`base_url=localhost:8000`: no http:// or https://"):
        openai_engine("localhost:8000", "m")


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (
            (200, {"object": "list", "data": [{"id": "a"}, {"id": "b"}]}),
            r"2 models \(a, b\); expected one model; name one instead of auto",
        ),
        ((200, {"object": "list", "data": []}), r"0 models \(none\)"),
        ((200, b"<html>"), r"no list of models \(<html>\).*often ends in /v1"),
        ((200, []), r"no list of models \(\[\]\)"),
        ((404, {"detail": "Not Found"}), r"no list of models \(\{\"detail\": \"Not Found\"\}\)"),
    ],
)
def test_where_there_is_not_one_model_its_name_is_asked_for(openai, models, message):
    def reply(path, request):
        return models if path == "/v1/models" else echo(path, request)

    with serving(reply) as server:
        with pytest.raises(UserError, match=message):
            openai_engine(server.url)
        assert openai_engine(server.url, "named")


@pytest.mark.parametrize("body", [b"<html>", b"", [], {}, {"choices": []}, {"choices": [{}]}])
def test_what_is_no_chat_completion_is_refused(openai, prompts, body):
    def reply(path, request):
        return (200, body) if request else echo(path, request)

    with serving(reply) as server, pytest.raises(UserError, match="no chat completion came back"):
        list(openai_engine(server.url)(prompts[:1], 3))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from actor_tune.engines.openai import openai_engine as e; e('http://127.0.0.1:9/v1')", "actor-tune[openai]"),
        ("from actor_tune.engines.vllm import vllm_engine as e; e('m')", "actor-tune[vllm]"),
    ],
)
def test_a_missing_extra_is_named(code, message):
    hidden = "import sys; sys.modules['openai'] = sys.modules['vllm'] = None; " + code
    outcome = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False)
    assert f"pip install '{message}'" in outcome.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def testbed_answers(testbed_model):
    """Prompts, and what the testbed answers here, one at a time: padding moves bfloat16's last bits, and then words."""
    prompts = [
        *starter("held_out")[:160:20],
        *with_system_prompt(starter("held_out")[7:160:40], "Be brief."),
    ]
    return prompts, texts(local_engine(load(str(testbed_model), Placement(dtype="bfloat16")), 1), prompts, 24)


@contextmanager
def transformers_serve(model, log):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(sys.executable).with_name("transformers")
    command = [script, "serve", model, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with log.open("w") as stream, subprocess.Popen(command, stdout=stream, stderr=stream, env=environment) as server:
        try:
            deadline = time.monotonic() + 180
            while not _listens(port):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def agreement(found, expected):
    """The share of equal answers."""
    return sum(one == other for one, other in zip(found, expected, strict=True)) / len(expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # other people's code
def test_a_real_server_answers_as_the_model_does_here(openai, testbed_model, testbed_answers, tmp_path):
    pytest.importorskip("uvicorn", reason="needs transformers[serving]")
    prompts, expected = testbed_answers
    with transformers_serve(testbed_model, tmp_path / "server.log") as url:
        found = texts(openai_engine(url, str(testbed_model), concurrency=2), prompts, 24)
        with pytest.raises(UserError, match=r"status 400 .*pinned"):
            list(openai_engine(url, "another")(prompts[:1], 3))
    assert agreement(found, expected) >= 0.9


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_vllm_answers_as_the_model_does_here(testbed_model, testbed_answers):
    pytest.importorskip("vllm", reason="needs the extra vllm")
    prompts, expected = testbed_answers
    engine = vllm_engine(str(testbed_model), max_model_len=512)
    assert agreement(texts(engine, prompts, 24), expected) >= 0.5  # other kernels, other last bits
    with pytest.raises(UserError, match=r"vLLM says: .*512.*leave out the prompts"):
        list(engine([Prompt("long " * 600, "harmless", "s")], 3))
