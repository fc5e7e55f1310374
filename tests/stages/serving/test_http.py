import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from stages.artifacts.checkpoint import Checkpoint
from stages.inference.text import Vocabulary
from stages.serving.http import application, create
from stages.serving.service import Service
from tests.stages.artifacts.test_encoding import backtracking
from tests.stages.inference.support import END, ScriptedBatch
from tests.stages.model.models import byte_tokenizer, small_config, small_model
from tests.stages.serving.support import scripted_service, serving

Served = tuple[httpx.Client, Service, ScriptedBatch]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    service, batch = scripted_service(max_body_bytes=20_000, body_timeout_s=1.0)
    with serving(application(service)) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client, service, batch


@pytest.fixture
def client(served: Served) -> httpx.Client:
    return served[0]


SCORES = ("tokens", "token_logprobs", "top_logprobs")


def complete(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/v1/completions", json={"prompt": "hello", "temperature": 0} | body)


def text(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["text"])


def events(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_text_at_which_the_tokenizer_fails_is_refused_with_the_reason() -> None:
    service, _ = scripted_service(context_length=10_000)
    service.vocabulary = Vocabulary(backtracking())
    with serving(application(service)) as url, httpx.Client(base_url=url, timeout=60) as client:
        for long in (50, 5_000):
            answer = complete(client, prompt="a" * long + "b")
            error = answer.json()["error"]
            assert (answer.status_code, error["param"]) == (400, "prompt")
            assert "the tokenizer cannot encode a text" in error["message"]
        assert complete(client).status_code == 200


def test_a_completion_has_openais_shape(client: httpx.Client) -> None:
    answer = complete(client, model="tiny", max_tokens=7).json()
    assert answer["object"] == "text_completion"
    assert answer["model"] == "tiny"
    assert answer["id"].startswith("cmpl-")
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length"]
    assert answer["usage"]["completion_tokens"] == 7
    assert answer["usage"]["total_tokens"] == 7 + answer["usage"]["prompt_tokens"]


def test_many_prompts_and_choices_keep_their_order(client: httpx.Client) -> None:
    answer = complete(client, prompt=["hello", "world"], n=2, seed=4, temperature=1, max_tokens=5).json()
    texts = [choice["text"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert len(set(texts)) == 4
    assert texts[:2] == [text(complete(client, seed=seed, temperature=1, max_tokens=5)) for seed in (4, 5)]
    assert texts[2] == text(complete(client, prompt="world", seed=4, temperature=1, max_tokens=5))


def test_a_text_begins_a_document_and_tokens_are_read_as_they_are(served: Served) -> None:
    client, service, _ = served
    tokens = service.vocabulary.encode("hello")
    assert text(complete(client, prompt=[END, *tokens])) == text(complete(client))
    assert text(complete(client, prompt=[[END, *tokens]])) == text(complete(client))
    assert text(complete(client, prompt=tokens)) != text(complete(client))
    assert text(complete(client, prompt="")) == text(complete(client, prompt=[END]))
    assert complete(client).json()["usage"]["prompt_tokens"] == 1 + len(tokens)


def test_a_text_begins_with_itself_where_the_model_was_trained_so() -> None:
    service, _ = scripted_service(start=())
    with serving(application(service)) as url, httpx.Client(base_url=url) as client:
        tokens = service.vocabulary.encode("hello")
        answer = complete(client, echo=True, logprobs=1).json()
        assert answer["choices"][0]["text"] == text(complete(client, prompt=tokens, echo=True))
        assert answer["choices"][0]["logprobs"]["token_logprobs"][0] is None  # nothing precedes it
        assert answer["usage"]["prompt_tokens"] == len(tokens)
        assert text(complete(client, prompt="")) == text(complete(client, prompt=[END]))


def test_a_model_begins_an_empty_text_after_the_end_of_another(tmp_path: Path) -> None:
    config = small_config(vocab_size=260)
    model = Checkpoint.save(tmp_path, small_model(config), config, byte_tokenizer(tmp_path / "t.json"), {})
    with serving(create({"model": str(model.path), "max_running": 1})) as url, httpx.Client(base_url=url) as client:
        ask = {"max_tokens": 30, "temperature": 1, "seed": 1}
        after = [text(complete(client, prompt=[token], **ask)) for token in range(4)]
        assert len(set(after)) == 4
        assert text(complete(client, prompt="", **ask)) == after[config.eos_token_id]


def test_a_stream_put_together_is_the_whole_answer(client: httpx.Client) -> None:
    body = {
        "prompt": ["hello", "world"],
        "n": 2,
        "seed": 1,
        "temperature": 1,
        "max_tokens": 20,
        "logprobs": 2,
        "echo": True,
    }
    whole = complete(client, **body).json()
    streamed = complete(client, **body, stream=True, stream_options={"include_usage": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    chunks = events(streamed)
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[-1]["choices"] == []
    assert len({chunk["id"] for chunk in chunks}) == 1
    for choice in whole["choices"]:
        parts = [part for chunk in chunks for part in chunk["choices"] if part["index"] == choice["index"]]
        assert "".join(part["text"] for part in parts) == choice["text"]
        assert [part["finish_reason"] for part in parts] == [None] * (len(parts) - 1) + ["length"]
        for key, values in choice["logprobs"].items():
            assert [value for part in parts for value in part["logprobs"][key]] == values


def test_a_stream_comes_token_by_token(served: Served) -> None:
    client, _, batch = served
    with client.stream(
        "POST", "/v1/completions", json={"prompt": "hello", "stream": True, "max_tokens": 40}
    ) as response:
        lines = response.iter_lines()
        first = next(line for line in lines if line)
        batch.gate.clear()
        assert json.loads(first.removeprefix("data: "))["choices"][0]["finish_reason"] is None
        batch.gate.set()
        assert [line for line in lines if line][-1] == "data: [DONE]"


def test_echo_and_logprobs_of_the_prompt(served: Served) -> None:
    client, service, _ = served
    answer = complete(client, prompt="hello wörld", max_tokens=0, echo=True, logprobs=1).json()["choices"][0]
    names = [service.vocabulary.name(token) for token in service.vocabulary.encode("hello wörld")]
    assert answer["text"] == "hello wörld"
    assert answer["logprobs"]["tokens"] == names
    assert all(value <= 0 for value in answer["logprobs"]["token_logprobs"])
    assert answer["logprobs"]["text_offset"] == [sum(map(len, names[:index])) for index in range(len(names))]
    for name, score, top in zip(*(answer["logprobs"][key] for key in SCORES), strict=True):
        assert top[name] == score
        assert len(top) == 1 + (score < max(top.values()))  # the most likely token, and the one that is there
    tokens = service.vocabulary.encode("hello wörld")
    bare = complete(client, prompt=tokens, max_tokens=0, echo=True, logprobs=1).json()["choices"][0]
    assert (bare["text"], bare["logprobs"]["tokens"]) == ("hello wörld", names)
    assert bare["logprobs"]["token_logprobs"][0] is None  # nothing precedes it
    assert bare["logprobs"]["top_logprobs"][0] is None


def test_the_end_of_a_text_is_counted_and_scored_and_echoed_with_the_prompt() -> None:
    service, _ = scripted_service(ending=True, context_length=10_000)
    with serving(application(service)) as url, httpx.Client(base_url=url, timeout=60) as client:
        ask = {"temperature": 1, "seed": 1, "max_tokens": 9000, "logprobs": 1}
        whole = complete(client, **ask).json()
        choice = whole["choices"][0]
        assert choice["finish_reason"] == "stop"
        assert whole["usage"]["completion_tokens"] == len(choice["logprobs"]["tokens"])
        assert choice["logprobs"]["tokens"][-1] == "</s>"
        assert choice["logprobs"]["text_offset"][-1] == len(choice["text"])
        echoed = complete(client, **ask, echo=True).json()["choices"][0]
        assert echoed["text"] == "hello" + choice["text"]
        assert echoed["logprobs"]["tokens"][-1] == "</s>"
        chunks = events(complete(client, **ask, stream=True))
        assert [name for chunk in chunks for name in chunk["choices"][0]["logprobs"]["tokens"]] == choice["logprobs"][
            "tokens"
        ]


def test_a_length_that_is_not_given_ends_at_the_context(client: httpx.Client) -> None:
    answer = complete(client, prompt=[5] * 60).json()
    assert answer["usage"]["completion_tokens"] == 4
    assert complete(client, prompt=[5]).json()["usage"]["completion_tokens"] == 16


def test_head_is_answered_wherever_get_is(client: httpx.Client) -> None:
    for path in ("/health", "/ready", "/metrics", "/v1/models", "/v1/models/tiny", "/openapi.json"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"] == client.get(path).headers["content-type"]
    assert client.head("/v1/completions").status_code == 405


def test_every_answer_names_its_request(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    client, _, batch = served
    assert client.get("/health", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    first, second = (client.get("/health").headers["x-request-id"] for _ in range(2))
    assert first != second
    assert "\n" not in client.get("/health", headers={"x-request-id": "a b"}).headers["x-request-id"]
    batch.fail = True
    failed = client.post("/v1/completions", json={"prompt": "hello"}, headers={"x-request-id": "mine-2"})
    batch.fail = False
    assert "request mine-2" in failed.json()["error"]["message"]
    assert "request mine-2" in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_ends_at_its_deadline_even_if_a_step_does_not_return(stream: bool) -> None:
    service, batch = scripted_service(request_timeout_s=0.3)
    with serving(application(service)) as url, httpx.Client(base_url=url, timeout=60) as client:
        batch.gate.clear()
        answer = complete(client, stream=stream)
        error = events(answer)[-1]["error"] if stream else answer.json()["error"]
        assert "was not answered within 0.3 seconds" in error["message"]
        assert stream or answer.status_code == 504
        batch.gate.set()
        wait_until(lambda: not batch.sequences)


def test_generated_tokens_are_counted_while_they_are_generated(served: Served) -> None:
    client, _, batch = served

    def generated() -> float:
        name = "bloomline:generation_tokens_total"
        return next(float(one.split()[1]) for one in client.get("/metrics").text.splitlines() if one.startswith(name))

    before = generated()
    body = {"prompt": "hello", "stream": True, "max_tokens": 40}
    with client.stream("POST", "/v1/completions", json=body) as response:
        lines = response.iter_lines()
        next(line for line in lines if line)
        batch.gate.clear()
        wait_until(lambda: before < generated() <= before + 40)
        batch.gate.set()
        assert [line for line in lines if line][-1] == "data: [DONE]"
    wait_until(lambda: generated() == before + 40)


def test_an_unexpected_failure_is_answered_in_the_same_shape(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    client, service, _ = served
    monkeypatch.setattr(service.metrics, "render", lambda: 1 / 0)
    answer = client.get("/metrics")
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert answer.headers["x-request-id"] in answer.json()["error"]["message"]


def test_stop_strings_end_the_text_before_them(client: httpx.Client) -> None:
    whole = text(complete(client, max_tokens=30))
    stop = whole[10:12]
    for choice in (complete(client, max_tokens=30, stop=stop), complete(client, max_tokens=30, stop=["\0", stop])):
        assert text(choice) == whole[: whole.find(stop)]
        assert choice.json()["choices"][0]["finish_reason"] == "stop"


def test_models_health_and_metrics(client: httpx.Client) -> None:
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["tiny"]
    assert client.get("/v1/models/tiny").json()["max_model_len"] == 64
    for path in ("/health", "/ready"):
        assert client.get(path).json() == {"status": "ok"}
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "bloomline:time_to_first_token_seconds_bucket" in metrics.text


def test_the_schema_of_a_request_is_whole(client: httpx.Client) -> None:
    description = client.get("/openapi.json").json()
    schema = description["paths"]["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "$ref" not in json.dumps(schema)
    options, null = schema["properties"]["stream_options"]["anyOf"]
    assert options["properties"]["include_usage"]["type"] == "boolean"
    assert null == {"type": "null"}
    assert [kind.get("minItems") for kind in schema["properties"]["prompt"]["anyOf"]] == [None, 1, 1, 1]
    for path, method in (("/v1/completions", "post"), ("/v1/models/{name}", "get"), ("/health", "get")):
        described = description["paths"][path][method]["responses"]
        assert set(described) == {"200", "4XX", "5XX"}
        assert "error" in described["4XX"]["content"]["application/json"]["schema"]["properties"]
    assert list(description["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"model": "other"}, 404, "does not exist"),
        ({"prompt": "x " * 3000}, 400, "leaves no room for a completion in the model's context of 64 tokens"),
        ({"prompt": [5] * 64}, 400, "the prompt (64 tokens) leaves no room"),
        ({"prompt": [5] * 60, "max_tokens": 5}, 400, "the prompt (60 tokens) and max_tokens (5) exceed the model's"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, 400, "leave it out or set it to false"),
        ({"max_tokens": 65}, 400, "exceed the model's context of 64 tokens"),
        ({"prompt": [10**6]}, 400, "token 1000000 does not exist"),
        ({"prompt": [-1]}, 400, "expected a text"),
        ({"prompt": [True]}, 400, "expected a text"),
        ({"prompt": []}, 400, "expected a text"),
        ({"prompt": [[]]}, 400, "expected a text"),
        ({"prompt": ["a", 1]}, 400, "expected a text"),
        ({"prompt": None}, 400, "prompt: Field required"),
        ({"prompt": "a\ud800"}, 400, "lone surrogate"),
        ({"stop": "\ud800"}, 400, "lone surrogate"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": "1"}, 400, "temperature"),
        ({"temperature": float("nan")}, 400, "NaN is not a JSON number"),
        ({"top_p": float("inf")}, 400, "Infinity is not a JSON number"),
        ({"top_p": 0}, 400, "top_p"),
        ({"max_tokens": 1.5}, 400, "max_tokens"),
        ({"max_tokens": True}, 400, "max_tokens"),
        ({"n": 0}, 400, "n: "),
        ({"n": 100}, 400, "send fewer"),
        ({"prompt": ["a"] * 69}, 400, "send fewer"),
        ({"logprobs": 21}, 400, "logprobs"),
        ({"seed": 2**63}, 400, "seed"),
        ({"stop": ""}, 400, "stop strings of 1 to"),
        ({"stop": ["a", 1]}, 400, "stop: expected at most"),
        ({"stop": ["a"] * 17}, 400, "at most 16 stop strings"),
        ({"stream": "yes"}, 400, "stream"),
        ({"stream_options": {}}, 400, "stream_options is accepted only"),
        ({"best_of": 3}, 400, "best_of"),
        ({"stream": True, "stream_options": {"include_usage": "yes"}}, 400, "stream_options.include_usage: "),
        (
            {"stream": True, "stream_options": {"usage": True}},
            400,
            "unknown parameter; the known ones are include",
        ),
        ({"presence_penalty": 0.5}, 400, "presence_penalty: not supported by this server: leave it out or set it to 0"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias: not supported by this server: leave it out or set it to {}"),
        ({"suffix": "b"}, 400, 'suffix: not supported by this server: leave it out or set it to ""'),
        ({"temprature": 0.5}, 400, "temprature: unknown parameter; the known ones are model, prompt, max_tokens"),
    ],
)
def test_the_answer_to_a_bad_request_says_what_is_wrong(
    client: httpx.Client, body: dict[str, Any], status: int, reason: str
) -> None:
    content = json.dumps({"prompt": "hello"} | body)
    response = client.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    assert (response.status_code, reason in response.json()["error"]["message"]) == (status, True), response.text
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"", 400, "not valid JSON"),
        (b"{", 400, "not valid JSON"),
        (b"[1]", 400, "must be a JSON object"),
        (b'{"prompt": "\xff"}', 400, "not valid UTF-8"),
        (b'{"prompt": ' + b"[" * 9000 + b"]" * 9000 + b"}", 400, ""),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, 400, ""),
        (b'{"max_tokens": ' + b"9" * 5000 + b"}", 400, ""),
        (b'{"prompt": "a", "temperature": 1e999}', 400, "temperature"),
        (b" " * 20_001, 413, "larger than 20000 bytes"),
    ],
)
def test_the_answer_to_an_invalid_body_says_why(client: httpx.Client, content: bytes, status: int, reason: str) -> None:
    response = client.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    assert (response.status_code, reason in response.json()["error"]["message"]) == (status, True), response.text


def test_wrong_paths_methods_and_types_answer_in_the_same_shape(client: httpx.Client) -> None:
    answers = {
        404: client.get("/v2/nothing"),
        405: client.get("/v1/completions"),
        415: client.post("/v1/completions", content=b"{}", headers={"content-type": "text/plain"}),
    }
    assert client.get("/v1/models/other").status_code == 404
    for status, response in answers.items():
        assert response.status_code == status
        assert response.json()["error"]["message"]
    assert answers[405].headers["allow"] == "POST"


def test_a_body_without_a_length_is_bounded_too(client: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 1000

    response = client.post("/v1/completions", content=endless(), headers={"content-type": "application/json"})
    assert response.status_code == 413


def connect(client: httpx.Client) -> socket.socket:
    url = urlsplit(str(client.base_url))
    return socket.create_connection((url.hostname, url.port), timeout=60)


def request_bytes(body: dict[str, Any], length: int | None = None) -> bytes:
    content = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {length or len(content)}\r\n\r\n".encode() + content


def test_a_body_that_never_comes_is_given_up(client: httpx.Client) -> None:
    with connect(client) as connection:
        connection.sendall(request_bytes({"prompt": "hello"}, length=1000))
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_disconnects_cancels_its_sequence(stream: bool) -> None:
    service, batch = scripted_service(slots=1, context_length=10**6)
    with serving(application(service)) as url, httpx.Client(base_url=url, timeout=60) as client:
        with connect(client) as connection:
            connection.sendall(request_bytes({"prompt": "hello", "max_tokens": 900_000, "stream": stream}))
            if stream:
                assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            wait_until(lambda: batch.sequences)
        wait_until(lambda: not batch.sequences)
        assert text(complete(client))  # the only slot is free again
        assert 'finished_reason="cancelled"' in client.get("/metrics").text


def test_overload_is_refused_with_429_and_retry_after() -> None:
    service, batch = scripted_service(slots=1, max_waiting=1)
    with serving(application(service)) as url, httpx.Client(base_url=url, timeout=60) as client:
        batch.gate.clear()
        with ThreadPoolExecutor(2) as pool:
            pending = [pool.submit(complete, client) for _ in range(2)]
            full = {f'num_requests_{state}{{model_name="tiny",replica="0"}} 1.0' for state in ("running", "waiting")}
            wait_until(
                lambda: full <= {line.removeprefix("bloomline:") for line in client.get("/metrics").text.splitlines()}
            )
            refused = complete(client)
            batch.gate.set()
            assert {one.result().status_code for one in pending} == {200}
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "overloaded_error"
        assert text(complete(client))


def test_a_failing_step_is_a_500_and_the_server_continues(served: Served) -> None:
    client, _, batch = served
    batch.fail = True
    failed = complete(client), complete(client, stream=True)
    batch.fail = False
    assert failed[0].status_code == 500
    assert events(failed[1])[-1]["error"]["type"] == "server_error"
    assert text(complete(client))


def test_health_reports_an_engine_that_has_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    service, batch = scripted_service()
    with serving(application(service)) as url, httpx.Client(base_url=url, timeout=60) as client:
        monkeypatch.setattr(batch, "release", lambda slot: 1 / 0)
        batch.fail = True
        assert complete(client).status_code == 500
        wait_until(lambda: not service.engine.alive)
        for answer in (client.get("/health"), client.get("/ready"), complete(client)):
            assert int(answer.headers["retry-after"]) >= 1
            assert (answer.status_code, answer.json()["error"]["message"]) == (503, "the engine has stopped")


def test_shutting_down_ends_the_engine() -> None:
    service, _ = scripted_service()
    with serving(application(service)) as url:
        assert httpx.get(f"{url}/health").status_code == 200
    assert not service.engine.alive
