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
        (
            "steps.evaluate.prompts=xz",
            "steps.evaluate.prompts: 'xz'; expected a list. With one value, in a shell: 'steps.evaluate.prompts=[xz]'.",
        ),
        ("second.stage=evaluate", "Did you mean steps.second.stage=evaluate, which adds a step?"),
        ("+second.stage=evaluate", "Did you mean steps.second.stage=evaluate, which adds a step?"),
        ("store=runs/here", "store: 'runs/here'; expected a file of conf/store/. Did you mean store.root=runs/here?"),
        ("store=s3://bucket/x", "Did you mean store=s3 store.root=s3://bucket/x?"),
        ("cluster=http://head:8265", "Did you mean cluster=remote cluster.address=http://head:8265?"),
        (
            "model@steps.pretrain.model=own/small.yaml",
            "model: 'own/small.yaml'; expected a file of conf/model/. A file of yours is chosen by its name: "
            "--config-dir DIR model=NAME finds DIR/model/NAME.yaml.",
        ),
        ("store.root=s3://", "store.root: 's3://'; expected an address with a bucket, such as s3://BUCKET/PREFIX."),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--run"], ["--multirun"]])
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


@pytest.mark.parametrize("flags", [["--cfg", "job"], ["--help"]])
def test_what_hydra_shows_refuses_in_the_same_words(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["plan", "pipeline=debug", "learning_rate=1e-3"]) == 2
    words = capsys.readouterr().err
    assert cli.run(["plan", *flags, "pipeline=debug", "learning_rate=1e-3"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", words)
    assert cli.run(["plan", *flags, "quickstart"]) == 2
    assert "Did you mean pipeline=quickstart?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "this one is empty: unset the variable that it comes from to sign nothing."),
        ("abc", "expected a key of at least 32 characters, as `openssl rand -hex 32` makes one."),
    ],
)
def test_a_signing_key_that_is_none_is_named(
    key: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLOOMLINE_SIGNING_KEY", key)
    assert cli.run(["plan", "pipeline=debug"]) == 2
    err = capsys.readouterr().err
    assert "store.signing_key: '${oc.env:BLOOMLINE_SIGNING_KEY,null}'" in err
    assert said in err


OWN = """\
# @package _global_
name: own
steps:
  corpus: {stage: corpus, sources: {log: {reader: {kind: text, paths: [a.txt]}, license: MIT, language: en}}}
  words: {stage: tokenizer, corpus: corpus}
"""


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("vocab_size=300", "Did you mean steps.words.vocab_size=300?"),
        ("paths=[/dir]", "Did you mean steps.corpus.sources.log.reader.paths=[/dir]?"),
        ("reader.paths=[/dir]", "Did you mean steps.corpus.sources.log.reader.paths=[/dir]?"),
    ],
)
@pytest.mark.parametrize("flags", [["--config-dir", "conf"], ["hydra.searchpath=[file://conf]"]])
def test_the_steps_of_a_users_pipeline_are_known(
    flags: list[str],
    override: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "pipeline").mkdir(parents=True)
    (tmp_path / "conf" / "pipeline" / "own.yaml").write_text(OWN)
    assert cli.run(["plan", *flags, "pipeline=own", override]) == 2
    assert said in capsys.readouterr().err
