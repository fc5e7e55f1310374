"""The comparison with the released code of MEAformer, without that code: names, inputs, table and refusal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import entity_alignment, entity_alignment_released
from benchmarks.entity_alignment_released import PARAMETERS, as_released, padded, pair_of, settings_of
from stages.entity_alignment.losses import RELEASED_TOKENS
from stages.entity_alignment.modalities import inputs_of
from stages.entity_alignment.model import AlignmentModel
from stages.entity_alignment.sparse import SparseRows

SMALL: dict[str, Any] = {
    "entities": 30, "image_noise": 1.5, "dropped": 0.5, "seed": 0, "width": 8, "epochs": 2, "batch_size": 3500,
    "learning_rate": 5e-3, "code": "here",
}  # fmt: skip


def test_every_parameter_has_a_name_in_the_released_code() -> None:
    inputs = padded(inputs_of(pair_of(SMALL), None))
    model = AlignmentModel(settings_of(SMALL | {"weights": "same"})[0], inputs)
    with torch.no_grad():
        model.log_variances.copy_(torch.arange(4))
    ours = dict(model.named_parameters())
    assert ours.keys() == PARAMETERS.keys()
    found = as_released(model.state_dict())
    assert len(found) == len(ours), "no two have the same name"
    log_variances = found.pop("multi_loss_layer.log_vars").tolist()
    assert [inputs.modalities[int(place)] for place in log_variances[:4]] == list(RELEASED_TOKENS[:4])
    assert log_variances[4:] == [0, 0]
    for name, value in ours.items():
        if name != "log_variances":
            torch.testing.assert_close(found[PARAMETERS[name]], value.detach(), rtol=0, atol=0)


def test_further_columns_of_relations_are_empty() -> None:
    inputs = inputs_of(pair_of(SMALL), None)
    narrow, wide = (one.features["relation"] for one in (inputs, padded(inputs)))
    assert isinstance(narrow, SparseRows)
    assert isinstance(wide, SparseRows)
    dense = wide @ torch.eye(1000)
    torch.testing.assert_close(dense[:, : narrow.width], narrow @ torch.eye(narrow.width))
    assert not dense[:, narrow.width :].any()


@pytest.mark.parametrize("weights", ["same", "own"])
def test_a_training_leaves_unit_vectors_and_measurements(weights: str, tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    found = entity_alignment_released.one(SMALL | {"weights": weights, "vectors": str(path)})
    np.testing.assert_allclose(np.linalg.norm(np.load(path), axis=1), np.ones(60), rtol=1e-5)
    assert found["cpu_seconds_an_epoch"] > 0
    assert found["peak_memory_mib"] > 50


def test_the_table_has_paired_differences() -> None:
    rows = [
        {"weights": "own", "code": code, "hits_at_1": hits, "mrr": 0.5, "cpu_seconds_an_epoch": 1.0,
         "peak_memory_mib": 100, "largest_difference": 0.25, "mean_difference": 0.125}
        for code, values in (("released", (0.2, 0.3)), ("here", (0.21, 0.33))) for hits in values
    ]  # fmt: skip
    *lines, note = entity_alignment_released.table(rows).splitlines()
    assert lines[2].startswith("| own | released | 2 | 25.0 ± 63.5 |")
    assert lines[4].startswith("| own | difference | 2 | 2.0 ± 12.7 | 0.0 ± 0.0 |")
    assert "at most 3.00 points" in note


def test_without_the_released_code_it_says_where_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["entity_alignment.py", "released"])
    with pytest.raises(SystemExit) as ended:
        entity_alignment.main()
    assert ended.value.code == 2
    assert "https://github.com/zjukg/MEAformer" in capsys.readouterr().err
