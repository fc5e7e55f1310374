"""Pairs of graphs from folders, files, emoji and simulation; what is wrong in files is named or counted."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from stages.base import ArtifactError, StageError
from stages.entity_alignment import simulated_pair
from stages.entity_alignment.graph_pair import TENSORS, GraphPair
from stages.entity_alignment.graphs import Pair
from stages.entity_alignment.make_pair import MakeGraphPair
from stages.entity_alignment.sources import FeatureFile, PairFolder, SimulatedPair
from tests.stages.entity_alignment.graph_files import dbp15k, simulated
from tests.support import run_stage, test_data


def make(directory: Path, **fields: Any) -> tuple[GraphPair, Any]:
    return run_stage(MakeGraphPair.model_validate(fields), {}, directory, draw=False)


def test_a_dbp15k_folder(tmp_path: Path) -> None:
    artifact, context = make(tmp_path / "run", folder=dbp15k(tmp_path / "zh"), train_share=0.5, validation_share=0.34)
    pair = artifact.load()
    assert pair.triples.tolist()[0] == [0, 0, 1]
    assert pair.triples.tolist()[-1] == [10, 3, 11]
    assert {tuple(link) for link in pair.links.tolist()} == {(i, i + 6) for i in range(6)}
    assert pair.labels[1][0] == "Thing 0"
    assert artifact.facts.links == {"train": 2, "validation": 1, "test": 3}
    assert artifact.facts.absent["attribute"] == "there are no attributes"
    assert "the modality attribute is absent: there are no attributes" in context.notes
    again, _ = make(tmp_path / "again", folder=tmp_path / "zh", train_share=0.5, validation_share=0.34, seed=1)
    assert again.load().splits.tolist() != pair.splits.tolist()


def test_supervised_links_and_names_of_a_folder(tmp_path: Path) -> None:
    folder = dbp15k(
        tmp_path / "zh",
        sup_ent_ids="0\t6\n1\t7\n2\t8\n",
        ref_ent_ids="3\t9\n4\t10\n5\t11\n",
        training_attrs_1="0\tsize\tcolour\n",
    )
    (tmp_path / "names.json").write_text('[[0, ["first", "thing"]]]')
    artifact, _ = make(
        tmp_path / "run", folder={"path": folder, "names": tmp_path / "names.json"}, validation_share=0.3
    )
    pair = artifact.load()
    assert artifact.facts.links == {"train": 2, "validation": 1, "test": 3}
    assert {tuple(link) for link in pair.links_of("test").tolist()} == {(3, 9), (4, 10), (5, 11)}
    assert pair.labels[0][:2] == ["first thing", "Thing 1"]
    assert pair.attributes.tolist() == [[0, 0], [0, 1]]


def test_an_openea_folder_with_folds(tmp_path: Path) -> None:
    folder = tmp_path / "openea"
    fold = folder / "721_5fold" / "2"
    fold.mkdir(parents=True)
    (folder / "rel_triples_1").write_text("e/a\tnear\te/b\ne/b\tnear\te/c\ne/c\tin\te/d\n")
    (folder / "rel_triples_2").write_text("f/a\tnear\tf/b\nf/b\tnear\tf/c\nf/c\tin\tf/d\n")
    (folder / "attr_triples_1").write_text('e/a\tsize\t"3"\n')
    (folder / "ent_links").write_text("".join(f"e/{x}\tf/{x}\n" for x in "abcd"))
    for name, chosen in (("train_links", "ab"), ("valid_links", "c"), ("test_links", "d")):
        (fold / name).write_text("".join(f"e/{x}\tf/{x}\n" for x in chosen))
    artifact, _ = make(tmp_path / "run", folder={"path": folder, "fold": 2})
    pair = artifact.load()
    assert artifact.facts.links == {"train": 2, "validation": 1, "test": 1}
    assert artifact.facts.relations == 2, "the same name is the same relation"
    assert pair.links_of("test").tolist() == [[3, 7]]
    with pytest.raises(StageError, match="721_5fold has no folder 3; expected one of 2"):
        make(tmp_path / "other", folder={"path": folder, "fold": 3})
    names = tmp_path / "names.json"
    names.write_text("[]")
    with pytest.raises(StageError, match="names is for a folder of DBP15K"):
        list(PairFolder(path=folder, fold=2, names=names).files())


def test_n_triples_and_features(tmp_path: Path) -> None:
    statements = (
        "# a comment\n"
        "<http://e/a> <http://r/near> <http://e/b> .\n"
        '<http://e/a> <http://r/name> "A \\"quoted\\" name"@en .\n'
        "_:x <http://r/near> <http://e/b> .\n"
    )
    with gzip.open(tmp_path / "left.nt.gz", "wt") as file:
        file.write(statements)
    (tmp_path / "right.tsv").write_text("a\tnear\tb\nb\tnear\tc\n")
    (tmp_path / "seeds.tsv").write_text("http://e/a\ta\nhttp://e/b\tb\n_:x\tc\n")
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "left.npy", vectors)
    (tmp_path / "left.ids.txt").write_text("http://e/b\nhttp://e/a\n")
    np.savez(tmp_path / "right.npz", vectors=vectors, ids=np.array(["c", "a"]))
    features = {"image": {"left": tmp_path / "left.npy", "right": tmp_path / "right.npz"}}
    artifact, _ = make(
        tmp_path / "run", left=tmp_path / "left.nt.gz", right=tmp_path / "right.tsv", seeds=tmp_path / "seeds.tsv",
        features=features, train_share=1, validation_share=0,
    )  # fmt: skip
    pair = artifact.load()
    assert pair.entities[0] == ["http://e/a", "http://e/b", "_:x"]
    assert pair.attributes.tolist() == [[0, 0]]
    assert pair.vectors["image"].entities.tolist() == [0, 1, 3, 5]
    assert pair.vectors["image"].values[0].tolist() == [3, 4, 5]


def test_a_byte_order_mark_is_not_a_part_of_an_id(tmp_path: Path) -> None:
    marked = "\ufeff"
    (tmp_path / "left.tsv").write_text(f"{marked}a\tnear\tb\nb\tnear\ta\n")
    (tmp_path / "right.tsv").write_text("a\tnear\tb\n")
    (tmp_path / "seeds.tsv").write_text(f"{marked}a\ta\nb\tb\n")
    files = {side: tmp_path / f"{side}.tsv" for side in ("left", "right", "seeds")}
    artifact, _ = make(tmp_path / "run", **files, train_share=1, validation_share=0)
    assert artifact.load().entities == (["a", "b"], ["a", "b"])


def test_files_without_content_are_named(tmp_path: Path) -> None:
    for name, text in (("empty", ""), ("graph", "a\tnear\tb\n")):
        (tmp_path / f"{name}.tsv").write_text(text)
    empty, graph = tmp_path / "empty.tsv", tmp_path / "graph.tsv"
    with pytest.raises(StageError, match=r"empty\.tsv: no entity is in it"):
        make(tmp_path / "run", left=empty, right=graph, seeds=graph)
    with pytest.raises(StageError, match="the two graphs have no links"):
        make(tmp_path / "other", left=graph, right=graph, seeds=empty)


def test_a_pickle_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"left.pkl: expected a folder of images, .* pickles are not read"):
        list(FeatureFile(path=tmp_path / "left.pkl").files())


WRONG = [
    ({"triples_1": "0\t0\t1\n0\t0\t99\n"}, "1 x dangling id: triples_1:2: no entity has the id '99'"),
    ({"triples_2": "6\t\t7\n"}, "1 x empty relation: triples_2:1:"),
    ({"ent_ids_1": "0\ta\n0\tb\n1\tc\n"}, "duplicate id: ent_ids_1:2: the id 0 occurs again"),
    ({"ref_ent_ids": "0\t6\n0\t6\n"}, "duplicate link: ref_ent_ids:2: the link is already in line 1"),
    ({"ref_ent_ids": "0\t6\n0\t7\n"}, "link that is not one to one: ref_ent_ids:2:"),
    ({"ref_ent_ids": "0\t6\n1\t0\n"}, "dangling link: ref_ent_ids:2: no entity of that side has the id '0'"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG, ids=[message.split(":")[0] for _, message in WRONG])
def test_problems_are_refused_with_their_place(tmp_path: Path, changed: dict[str, str], message: str) -> None:
    folder = dbp15k(tmp_path / "zh", **changed)
    with pytest.raises(StageError) as refused:
        make(tmp_path / "run", folder=folder)
    assert message in str(refused.value)
    assert "problems: skip" in str(refused.value)


def test_problems_can_be_skipped_and_are_counted(tmp_path: Path) -> None:
    folder = dbp15k(tmp_path / "zh", triples_1="0\t0\t1\n0\t0\t99\n98\t0\t1\n1\t0\t2\n")
    artifact, context = make(tmp_path / "run", folder=folder, problems="skip", train_share=0.5)
    assert context.last["skipped"] == 2
    assert artifact.facts.triples == (2, 4)
    assert artifact.facts.problems[0].startswith("2 x dangling id: triples_1:2:")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"triples_1": "0 0 1\n"}, "triples_1:1: 1 column separated by tabs; expected 3 (head, relation, tail)"),
        ({"ent_ids_2": "six\tname\n"}, "ent_ids_2:1: 'six' is not an id"),
    ],
)
def test_malformed_lines_are_always_refused(tmp_path: Path, changed: dict[str, str], message: str) -> None:
    folder = dbp15k(tmp_path / "zh", **changed)
    with pytest.raises(StageError) as refused:
        make(tmp_path / "run", folder=folder, problems="skip")
    assert message in str(refused.value)


def with_features(tmp_path: Path, values: Any, ids: str) -> dict[str, Any]:
    folder = dbp15k(tmp_path / "zh")
    np.save(tmp_path / "left.npy", values, allow_pickle=True)
    (tmp_path / "left.ids.txt").write_text(ids)
    np.save(tmp_path / "right.npy", np.ones((1, 2), np.float32))
    (tmp_path / "right.ids.txt").write_text("6\n")
    features = {"image": {"left": tmp_path / "left.npy", "right": tmp_path / "right.npy"}}
    return {"folder": folder, "features": features}


@pytest.mark.parametrize(
    ("values", "ids", "message"),
    [
        (np.array([{}, {}]), "0\n1\n", "pickled objects are refused"),
        (np.ones((2, 2)), "0\n", "2 rows, but 1 ids"),
        (np.ones((2, 3)), "0\n1\n", "features.image: 3 dimensions on the left, 2 on the right"),
        (np.array([[1, np.nan], [1, 1]]), "0\n1\n", "features that are not finite: left.npy:1: the vector of '0'"),
        (
            np.array([[1, 1e300], [1, 1]]),
            "0\n1\n",
            "'0' has a value that is not a number from -1e",
        ),
        (np.full((2, 2), 1e30), "0\n1\n", "none of its 2 vectors has numbers within"),
        (np.ones((2, 2)), "0\n77\n", "features of an unknown entity: left.npy:2: no entity has the id '77'"),
        (np.ones((2, 2)), "0\n0\n", "duplicate features: left.npy:2"),
        (np.ones((1, 2)), "77\n", "none of its 1 ids is an entity"),
        (np.ones(2), "0\n1\n", "expected numbers"),
    ],
)
def test_features_are_checked(tmp_path: Path, values: Any, ids: str, message: str) -> None:
    with pytest.raises(StageError, match=message):
        make(tmp_path / "run", **with_features(tmp_path, values, ids))


def test_images_in_folders(tmp_path: Path) -> None:
    from PIL import Image

    folder = dbp15k(tmp_path / "zh")
    images = {"left": tmp_path / "left", "right": tmp_path / "right"}
    for side, first in (("left", 0), ("right", 6)):
        images[side].mkdir()
        for place, colour in enumerate(("red", "blue")):
            image = Image.new("RGB", (20, 30), "white")
            image.paste(colour, (5 + place * 4, 5, 12, 25))
            image.save(images[side] / f"{first + place}.png")
    artifact, _ = make(tmp_path / "run", folder=folder, features={"image": images}, train_share=0.5)
    vectors = artifact.load().vectors["image"]
    assert vectors.entities.tolist() == [0, 1, 6, 7]
    assert np.array_equal(vectors.values[:2], vectors.values[2:]), "the same pixels"
    assert np.abs(vectors.values[0] - vectors.values[1]).max() > 0.1
    (images["left"] / "2.png").write_bytes(b"no image")
    with pytest.raises(StageError, match=r"2\.png is not an image that can be read"):
        make(tmp_path / "again", folder=folder, features={"image": images}, train_share=0.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"left": "a.tsv"}, "right: missing"),
        ({"left": "a", "right": "b", "seeds": "c", "folder": "d"}, "choose one"),
        ({}, "there is no pair: give left.path, right.path and seeds.path, or folder.path, or made.kind"),
        ({"test": "a", "made": {"kind": "emoji"}}, "only left, right and seeds use it"),
        (
            {"made": {"kind": "emoji"}, "features": {"image": {"left": "a", "right": "b"}}},
            "a pair that is made has its own",
        ),
    ],
)
def test_fields_that_do_not_fit_together(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MakeGraphPair.model_validate(fields)


def test_too_few_links_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="1 of 6 links are seeds"):
        make(tmp_path / "run", folder=dbp15k(tmp_path / "zh"), train_share=0.1)


def test_a_folder_of_no_known_layout(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"expected ent_ids_1.*\(DBP15K\) or rel_triples_1"):
        make(tmp_path / "run", folder=tmp_path)


def test_the_digest_is_of_the_content_and_not_of_the_path(tmp_path: Path) -> None:
    def digest(folder: Path) -> str:
        source = MakeGraphPair.model_validate({"folder": folder}).folder
        assert source is not None
        return source.digest(lambda path: path.read_text())

    one, same = digest(dbp15k(tmp_path / "a")), digest(dbp15k(tmp_path / "b"))
    assert one == same
    assert one != digest(dbp15k(tmp_path / "c", triples_1="0\t0\t1\n"))


def test_emoji_do_not_give_their_counterparts_away(tmp_path: Path) -> None:
    artifact, _ = make(tmp_path / "run", made={"kind": "emoji", "limit": 300})
    pair = artifact.load()
    left, right = pair.entities
    assert all(left[a] == right[b - len(left)] for a, b in pair.links)
    places = np.array([(a, b - len(left)) for a, b in pair.links])
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.2, "the order of the entities says nothing"
    words = [{name for name in side if ":" in name} for side in pair.entities]
    assert words[0]
    assert not words[0] & words[1], "a word is a node of one language"
    of_left = pair.triples[:, 0] < len(left)
    assert not set(pair.triples[of_left, 1]) & set(pair.triples[~of_left, 1]), "the relations have different names"
    assert set(artifact.facts.absent) == {"image", "name"}


def test_an_unknown_language_of_emoji(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="languages: 'xx' is not one of the package emoji: ar, de, en"):
        make(tmp_path / "run", made={"kind": "emoji", "languages": ["en", "xx"]})


def test_the_simulated_noise_is_known(tmp_path: Path) -> None:
    clean = simulated(tmp_path / "clean").load()
    noisy = simulated(tmp_path / "noisy", corrupted_images=0.25).load()
    assert clean.corrupted == {}
    assert len(noisy.corrupted["image"]) == 20
    assert np.array_equal(simulated(tmp_path / "again").load().vectors["image"].values, clean.vectors["image"].values)


def counterpart_similarity(pair: Pair) -> float:
    images = pair.vectors["image"].values
    return float(np.corrcoef(images[pair.links[:, 0]].flatten(), images[pair.links[:, 1]].flatten())[0, 1])


def test_swapped_images_are_those_of_other_entities() -> None:
    intact, swapped = (
        simulated_pair.make(SimulatedPair(entities=20, corrupted_images=share, corruption="swapped"))
        for share in (0.0, 0.5)
    )
    before, after = intact.vectors["image"].values, swapped.vectors["image"].values
    changed = (before != after).any(axis=1).nonzero()[0]
    assert changed.tolist() == swapped.corrupted["image"].tolist()
    np.testing.assert_array_equal(np.sort(before[:20], axis=0), np.sort(after[:20], axis=0))


def test_simulated_images_agree_up_to_their_noise(tmp_path: Path) -> None:
    similar, noisy = (
        counterpart_similarity(simulated(tmp_path / str(noise), image_noise=noise).load()) for noise in (0.0, 2.0)
    )
    assert similar > 0.99
    assert noisy < 0.5


def test_a_damaged_artifact_is_refused(tmp_path: Path) -> None:
    artifact = simulated(tmp_path)
    (artifact.path / TENSORS).write_bytes(b"no tensors")
    with pytest.raises(ArtifactError, match="does not hold a pair"):
        artifact.check()


def test_dbp15k(tmp_path: Path) -> None:
    folder = test_data("dbp15k", "zh_en")
    names = test_data("dbp15k", "translated_ent_name", "dbp_zh_en.json")
    artifact, _ = make(tmp_path, folder={"path": folder, "names": names})
    facts = artifact.facts
    assert (sum(facts.entities), sum(facts.triples), facts.relations) == (38960, 165556, 3024)
    assert facts.links == {"train": 4050, "validation": 450, "test": 10500}
    assert not facts.problems
