"""Messages about keys that do not exist: each says what to write instead, with Hydra's flags and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import cli


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("pretrain.learning_rate=1e-3", "Did you mean steps.pretrain.learning_rate=1e-3?"),
        (
            "learning_rate=1e-3",
            "Did you mean one of steps.pretrain.learning_rate=1e-3, steps.moe.learning_rate=1e-3?",
        ),
        ("model=bloom_560m", "Did you mean model@steps.pretrain.model=bloom_560m?"),
        ("sotre=s3", "Did you mean 'store'?"),
        (
            "pipeline=import",
            "steps.model.source.path: not set; expected a path. Set it with steps.model.source.path=PATH.",
        ),
        ("store=s3", "expected the address of a bucket. Set it with store.root=s3://BUCKET/PREFIX."),
        ("steps.evaluate.baselines=xz", "expected a"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--run"]])
def test_the_key_that_was_meant_is_named(
    override: str,
    said: str,
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline = [] if override.startswith("pipeline=") else ["pipeline=debug"]
    assert cli.run(["plan", *flags, *pipeline, override]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize("flags", [["--config-dir", "conf"], ["hydra.searchpath=[file://conf]"]])
def test_the_steps_of_a_users_pipeline_are_known(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "pipeline").mkdir(parents=True)
    content = "# @package _global_\nname: own\nsteps:\n  words: {stage: tokenizer, corpus: corpus}\n"
    (tmp_path / "conf" / "pipeline" / "own.yaml").write_text(content)
    assert cli.run(["plan", *flags, "pipeline=own", "vocab_size=300"]) == 2
    assert "Did you mean steps.words.vocab_size=300?" in capsys.readouterr().err
