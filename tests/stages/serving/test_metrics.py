"""Prometheus reads what an engine reports, under vLLM's names."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from stages.serving.metrics import Metrics


def samples(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name and its labels other than the model's name."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        assert family.documentation.endswith((".", ".."))
        for one in family.samples:
            assert (one.labels.pop("model_name"), one.labels.pop("replica")) == ("tiny", "a")
            found["/".join([one.name, *one.labels.values()])] = one.value
    return found


def test_reports_are_counted_under_vllms_names() -> None:
    metrics = Metrics("tiny", "a")
    metrics.load(running=1, waiting=3, slots=4)
    metrics.queued(0.5)
    metrics.prompt_tokens(7)
    metrics.first_token(0.25)
    metrics.next_token(0.125)
    metrics.next_token(0.125)
    metrics.finished("length", 3, 2.0)
    metrics.rejected(429)
    found = samples(metrics)
    expected = {
        "num_requests_running": 1,
        "num_requests_waiting": 3,
        "kv_cache_usage_perc": 0.25,
        "request_queue_time_seconds_sum": 0.5,
        "prompt_tokens_total": 7,
        "generation_tokens_total": 3,
        "time_to_first_token_seconds_sum": 0.25,
        "inter_token_latency_seconds_count": 2,
        "e2e_request_latency_seconds_sum": 2,
        "request_success_total/length": 1,
        "request_rejected_total/429": 1,
    }
    assert {name: found[f"bloomline:{name}"] for name in expected} == expected


def test_every_engine_counts_for_itself() -> None:
    one, other = Metrics("tiny", "b"), Metrics("tiny", "a")
    one.prompt_tokens(5)
    assert samples(other)["bloomline:prompt_tokens_total"] == 0
