"""A model with the tokenizer of another language, whose tokens begin as what aligned words say they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as LoadedTokenizer
from tokenizers import models, pre_tokenizers

from stages.artifacts.checkpoint import Checkpoint
from stages.artifacts.tokenizer import SPECIAL_TOKENS, TOKENIZER, Tokenizer
from stages.base import StageError
from stages.word_alignment.align import AlignWords
from stages.word_alignment.alignment import WordAlignment
from stages.word_alignment.transfer_vocabulary import TransferVocabulary
from stages.word_alignment.transferred_embeddings import filled, rows
from stages.word_alignment.vectors import VectorFacts, write
from tests.stages.model.models import shaped, small_model
from tests.stages.word_alignment.spaces import planted
from tests.support import run_stage

WORDS = 200


def test_rows_by_hand() -> None:
    old = {"<s>": 0, "Ġhouse": 1, "Ġcat": 2, "Ġdog": 3}
    new = {"<s>": 0, "Ġmai": 1, "son": 2, "Ġchat": 3, "zz": 4}
    # maison = mai + son means house; chat means cat (score 0.6) or dog (0.6)
    found = rows(old, new, [[1, 2], [3]], [[([1], 0.5)], [([2], 0.6), ([3], 0.6)]])
    assert found.copied == {0: 0}
    assert found.weights == {1: {1: 1.0}, 2: {1: 1.0}, 3: {2: pytest.approx(0.5), 3: pytest.approx(0.5)}}
    assert found.drawn == [4]
    matrix = np.array([[9, 9], [1, 0], [0, 2], [4, 0]], np.float32)
    made = filled(matrix, found, np.random.default_rng(0))
    np.testing.assert_allclose(made[:4], [[9, 9], [1, 0], [1, 0], [2, 1]], rtol=1e-6)
    assert made.shape == (5, 2)


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 19), min_size=1, max_size=4),
            st.lists(
                st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=3), st.floats(-2, 2)),
                min_size=1,
                max_size=4,
            ),
        ),
        max_size=10,
    )
)
def test_every_row_has_one_origin_and_weights_are_shares(words: list[Any]) -> None:
    old = {f"t{place}": place for place in range(10)}
    new = {f"t{place}": place for place in range(5)} | {f"n{place}": place for place in range(5, 20)}
    found = rows(old, new, [tokens for tokens, _ in words], [answers for _, answers in words])
    assert sorted([*found.copied, *found.weights, *found.drawn]) == list(range(20))
    for weights in found.weights.values():
        assert sum(weights.values()) == pytest.approx(1)
        assert min(weights.values()) >= 0


def word_tokenizer(folder: Path, words: list[str]) -> Tokenizer:
    """A token for each word after a space, next to the special tokens and the letters of bytes."""
    tokens = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(f"Ġ{word}" for word in words)]
    loaded = LoadedTokenizer(models.WordLevel({token: place for place, token in enumerate(tokens)}, "<unk>"))
    loaded.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    folder.mkdir(parents=True)
    loaded.save(str(folder / TOKENIZER))
    return Tokenizer(folder)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model of language aa, the tokenizer of language bb, their alignment, and the translations."""
    folder = tmp_path_factory.mktemp("transfer")
    source, target, _, places = planted(WORDS, 8, noise=0.05)
    names = {"aa": [f"a{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(WORDS)]}
    names["bb"] = [f"b{name[1:]}" for name in names["aa"]]
    artifacts: dict[str, Any] = {}
    for language, vectors in (("aa", source), ("bb", target)):
        (folder / language).mkdir()
        facts = VectorFacts(language=language, words=WORDS, dimensions=8, origin="file")
        artifacts[language] = write(folder / language, names[language], vectors, facts)
    fields = {"source": "aa", "target": "bb", "restarts": 2, "iterations": 3, "start_iterations": 15, "centroids": 30}
    alignment, _ = run_stage(AlignWords.model_validate(fields), artifacts, folder / "align", draw=False)
    assert alignment.facts.reliable
    old, new = (word_tokenizer(folder / f"tokenizer-{name}", names[name]) for name in ("aa", "bb"))
    model = small_model(shaped("bloom", vocab_size=old.vocab_size + 6, tied_head=request.param))  # with padding
    checkpoint = Checkpoint.save(folder / "model", model, model.config, old.file, {"steps": 1})
    return {"model": checkpoint, "tokenizer": new, "alignment": alignment, "names": names, "places": places}


def transferred(setting: dict[str, Any], folder: Path, **fields: Any) -> tuple[Checkpoint, Any]:
    stage = TransferVocabulary.model_validate({"model": "model", "tokenizer": "tokenizer", **fields})
    made: tuple[Checkpoint, Any] = run_stage(stage, setting, folder)
    return made


def test_a_word_begins_as_its_translation(setting: dict[str, Any], tmp_path: Path) -> None:
    made, context = transferred(setting, tmp_path, alignment="alignment", model_language="aa", translations=1)
    before, after = setting["model"].state_dict(), made.state_dict()
    old, new = setting["model"].tokenizer(), made.tokenizer()
    assert made.config.vocab_size == setting["tokenizer"].vocab_size
    for matrix in {"word_embeddings.weight", "lm_head.weight"} & after.keys():
        for token in (*SPECIAL_TOKENS, "a"):
            one, other = new.token_to_id(token), old.token_to_id(token)
            assert after[matrix][one].equal(before[matrix][other])
        right = sum(
            np.allclose(
                after[matrix][new.token_to_id(f"Ġ{setting['names']['bb'][place]}")],
                before[matrix][old.token_to_id(f"Ġ{setting['names']['aa'][number]}")],
                rtol=1e-5,
            )
            for number, place in enumerate(setting["places"])
        )
        assert right >= 0.95 * WORDS
    for name in before.keys() - {"word_embeddings.weight", "lm_head.weight"}:
        assert after[name].equal(before[name])
    assert context.last["aligned_tokens"] == WORDS
    assert context.last["drawn_tokens"] == 0


def test_without_an_alignment_new_tokens_are_drawn_by_the_seed(setting: dict[str, Any], tmp_path: Path) -> None:
    first, context = transferred(setting, tmp_path / "first")
    again, _ = transferred(setting, tmp_path / "again")
    other, _ = transferred(setting, tmp_path / "other", seed=1)
    name = "word_embeddings.weight"
    assert context.last["drawn_tokens"] == WORDS
    assert first.state_dict()[name].equal(again.state_dict()[name])
    assert not first.state_dict()[name].equal(other.state_dict()[name])


def test_a_language_that_the_alignment_lacks_is_refused(setting: dict[str, Any], tmp_path: Path) -> None:
    assert isinstance(setting["alignment"], WordAlignment)
    with pytest.raises(StageError, match="model_language is None; expected a language of the alignment: 'aa' or 'bb'"):
        transferred(setting, tmp_path, alignment="alignment")
