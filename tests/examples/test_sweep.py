"""What the jobs of a sweep have in common is computed once."""

from __future__ import annotations

from tests.examples.conftest import Project

RATES = (1e-3, 3e-3)


def test_only_the_training_is_repeated(project: Project) -> None:
    rates = ",".join(map(str, RATES))
    project(
        "run", "--config-dir", "conf", "pipeline=sweep", "cluster=inline", "--multirun",
        f"steps.pretrain.learning_rate={rates}",
    )  # fmt: skip
    records = project.records()
    assert {step: len(found) for step, found in records.items()} == {
        "corpus": 1,
        "tokenizer": 1,
        "tokens": 1,
        "pretrain": len(RATES),
    }
    assert {record.config["learning_rate"] for record in records["pretrain"]} == set(RATES)
    listed = project("artifacts", "list", "--config-dir", "conf", "pipeline=sweep")
    assert listed.count("Checkpoint") == len(RATES)
