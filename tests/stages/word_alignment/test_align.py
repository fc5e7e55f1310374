"""The stage that aligns: restarts that resume and do not depend on workers, and failures that report themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file

from stages.base import ArtifactError, Resources, StageError
from stages.csls import match
from stages.word_alignment import restarts, transport
from stages.word_alignment.align import AlignWords
from stages.word_alignment.alignment import FACTS, MAPPING, WordAlignment
from stages.word_alignment.linear import mapped
from stages.word_alignment.settings import NEIGHBOURS
from stages.word_alignment.vectors import WordVectors
from tests.stages.word_alignment.spaces import artifact, cloud, planted
from tests.support import RecordingContext, run_stage

WORDS, DIMENSIONS = 200, 8


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, WordVectors], np.ndarray]:
    """Vectors of two languages that are a rotation of one another, with noise, and the translations."""
    folder = tmp_path_factory.mktemp("pair")
    source, target, _, places = planted(WORDS, DIMENSIONS, noise=0.05)
    sides = {"a": artifact(folder / "a", source, "aa", "a"), "b": artifact(folder / "b", target, "bb", "b")}
    return sides, places


def aligning(**changes: Any) -> AlignWords:
    fields = {"source": "a", "target": "b", "restarts": 2, "iterations": 2, "start_iterations": 15, "centroids": 30}
    return AlignWords.model_validate(fields | changes)


def test_finds_a_planted_rotation_and_says_so(pair: tuple[Any, np.ndarray], tmp_path: Path) -> None:
    alignment, context = run_stage(aligning(), pair[0], tmp_path)
    facts, tensors = alignment.facts, alignment.tensors()
    assert facts.reliable
    assert facts.languages == ("aa", "bb")
    assert context.highlights["alignment"].startswith("aa -> bb is aligned")
    found = match(mapped(alignment.side("source")[1], tensors["mapping"]), alignment.side("target")[1], NEIGHBOURS)
    assert (found.key_of_query == pair[1]).mean() > 0.98
    assert len(facts.restarts) == 2
    assert facts.restarts[facts.kept].criterion == max(restart.criterion for restart in facts.restarts)
    np.testing.assert_array_equal(tensors["trajectory"][-1], tensors["mapping"])
    np.testing.assert_array_equal(tensors["trajectory"][facts.method_iterations - 1], tensors["unrefined"])
    assert context.figures == ["criterion", "spaces"]
    curve = [values["criterion_by_iteration"] for _, values in context.recorded if "criterion_by_iteration" in values]
    assert tuple(curve) == facts.restarts[facts.kept].criteria
    assert context.last["reliable"] == 1
    assert alignment.describe()["reliable"] is True


def test_spaces_of_different_shape_are_reported_as_not_aligned(tmp_path: Path) -> None:
    sides = {
        "a": artifact(tmp_path / "a", cloud(WORDS, DIMENSIONS, seed=1), "aa", "a"),
        "b": artifact(tmp_path / "b", cloud(WORDS, DIMENSIONS, seed=2), "bb", "b"),
    }
    alignment, context = run_stage(aligning(), sides, tmp_path / "step", draw=False)
    assert not alignment.facts.reliable
    assert "NOT aligned" in context.highlights["alignment"]
    assert context.last["reliable"] == 0


class Workers(RecordingContext):
    """Items in processes of their own, in whatever order they end."""

    def map(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        *,
        workers: int = 0,
        resources: Resources = Resources(),
        max_retries: int = 3,
    ) -> Iterator[tuple[int, Any]]:
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            tasks = {pool.submit(function, item): index for index, item in enumerate(items)}
            for task in as_completed(tasks):
                yield tasks[task], task.result()


def test_one_seed_gives_one_map_whatever_the_workers(pair: tuple[Any, Any], tmp_path: Path) -> None:
    contexts = []
    for kind in (RecordingContext, Workers):
        context = kind(tmp_path / kind.__name__, tmp_path / f"{kind.__name__}-scratch", draw=False)
        context.out.mkdir()
        context.scratch.mkdir()
        aligning().bind(pair[0]).run(context)
        contexts.append(context)
    first, other = (load_file(context.out / MAPPING) for context in contexts)
    for name in first:
        np.testing.assert_array_equal(first[name], other[name])
    another, _ = run_stage(aligning(seed=7), pair[0], tmp_path / "seed", draw=False)
    assert not np.array_equal(another.tensors()["unrefined"], first["unrefined"])


def test_finished_restarts_are_not_done_again(
    pair: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill in the third restart, the same step does that one and the last, with the same result."""
    whole, _ = run_stage(aligning(restarts=4), pair[0], tmp_path / "whole", draw=False)
    honest, done = restarts._method, []

    def killed(task: restarts.Task, *arguments: Any) -> Any:
        if task.seed == 2 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        done.append(task.seed)
        return honest(task, *arguments)

    monkeypatch.setattr(restarts, "_method", killed)
    with pytest.raises(KeyboardInterrupt):
        run_stage(aligning(restarts=4), pair[0], tmp_path / "killed", draw=False)
    (tmp_path / "again").touch()
    resumed, _ = run_stage(aligning(restarts=4), pair[0], tmp_path / "killed", draw=False)
    assert done == [0, 1, 2, 3]
    np.testing.assert_array_equal(resumed.tensors()["mapping"], whole.tensors()["mapping"])
    assert resumed.facts.kept == whole.facts.kept


def align_until_killed(sides: dict[str, WordVectors], folder: Path) -> None:
    """Four restarts in a process that is killed while it computes the third."""
    honest = restarts._method

    def deadly(task: restarts.Task, *arguments: Any) -> Any:
        if task.seed == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return honest(task, *arguments)

    restarts._method = deadly  # type: ignore[assignment]
    run_stage(aligning(restarts=4), sides, folder, draw=False)


def test_a_killed_process_loses_only_the_restart_that_it_computed(pair: tuple[Any, Any], tmp_path: Path) -> None:
    process = get_context("spawn").Process(target=align_until_killed, args=(pair[0], tmp_path / "killed"))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "scratch").glob("restart-*")}
    assert [path.name for path in sorted(finished)] == ["restart-0.safetensors", "restart-1.safetensors"]
    resumed, _ = run_stage(aligning(restarts=4), pair[0], tmp_path / "killed", draw=False)
    whole, _ = run_stage(aligning(restarts=4), pair[0], tmp_path / "whole", draw=False)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    np.testing.assert_array_equal(resumed.tensors()["mapping"], whole.tensors()["mapping"])


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "stochastic_wasserstein", "batch_iterations": 16, "batch_words": 50},
        {"method": "gromov_wasserstein"},
        {"method": "self_learning"},
        {"method": "procrustes"},
        {"method": "rcsls"},
        {"relaxation": 1.0},
        {"sampler": "random"},
    ],
    ids=str,
)
def test_every_method_finds_the_planted_rotation(
    pair: tuple[Any, np.ndarray], tmp_path: Path, fields: dict[str, Any]
) -> None:
    if fields.get("method") in ("procrustes", "rcsls"):
        lines = [f"a{place}\tb{translation}\n" for place, translation in enumerate(pair[1][:60])]
        (tmp_path / "pairs.tsv").write_text("".join(lines))
        fields = fields | {"dictionary": str(tmp_path / "pairs.tsv")}
    alignment, _ = run_stage(aligning(**fields), pair[0], tmp_path / "step", draw=False)
    found = match(
        mapped(alignment.side("source")[1], alignment.tensors()["mapping"]), alignment.side("target")[1], NEIGHBOURS
    )
    assert (found.key_of_query == pair[1]).mean() > 0.98
    assert alignment.facts.reliable


def test_identical_strings_start_from_words_that_both_have(pair: tuple[Any, np.ndarray], tmp_path: Path) -> None:
    sides = dict(pair[0])
    with pytest.raises(StageError, match="no two strings in common"):
        run_stage(aligning(method="identical_strings"), sides, tmp_path / "none", draw=False)
    words, vectors = sides["b"].load()
    source_words = sides["a"].load()[0]
    renamed = list(words)
    for place in range(40):
        renamed[pair[1][place]] = source_words[place]
    from stages.word_alignment.vectors import write

    (tmp_path / "b").mkdir()
    sides["b"] = write(tmp_path / "b", renamed, vectors, sides["b"].facts)
    alignment, _ = run_stage(aligning(method="identical_strings"), sides, tmp_path / "some", draw=False)
    assert alignment.facts.reliable


def test_refusals(pair: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StageError, match="needs a training dictionary"):
        run_stage(aligning(method="procrustes"), pair[0], tmp_path / "procrustes")
    with pytest.raises(ValidationError, match="uses none"):
        aligning(dictionary="pairs.tsv")
    sides = pair[0] | {"b": artifact(tmp_path / "b", cloud(50, 5), "bb", "b")}
    with pytest.raises(StageError, match="8 dimensions, the target's 5"):
        run_stage(aligning(), sides, tmp_path / "dimensions")
    monkeypatch.setitem(__import__("sys").modules, "ot", None)
    with pytest.raises(StageError, match=r"install bloomline\[word_alignment\]"):
        transport.pot()


def test_a_changed_artifact_is_refused(pair: tuple[Any, Any], tmp_path: Path) -> None:
    alignment, _ = run_stage(aligning(restarts=1), pair[0], tmp_path, draw=False)
    facts = alignment.path / FACTS
    facts.write_text(facts.read_text().replace('"kept": 0', '"kept": 3'))
    with pytest.raises(ArtifactError, match="kept is 3"):
        WordAlignment(alignment.path).check()
    facts.write_text(
        facts.read_text().replace('"kept": 3', '"kept": 0').replace('"words": [\n    200', '"words": [\n    7')
    )
    with pytest.raises(ArtifactError, match="are not those that"):
        WordAlignment(alignment.path).check()
