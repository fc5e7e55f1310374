"""What decides the result of an alignment: the method and its parameters."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from stages.base import Config

Method = Literal[
    "quantized_wasserstein",  # qWP
    "stochastic_wasserstein",  # WP of Grave, Joulin & Berthet
    "gromov_wasserstein",
    "self_learning",  # after VecMap
    "identical_strings",
    "procrustes",  # supervised
    "rcsls",  # supervised
]
Sampler = Literal["random", "kmeans_plus_plus", "lloyd", "kmeans"]

# At this share of the words, centroids are better than as many random words (docs/word_alignment.md).
CENTROID_PERCENT = 8
MOST_CENTROIDS = 2000
NEIGHBOURS = 10  # k of CSLS in its paper and in MUSE
SUPERVISED: frozenset[Method] = frozenset({"procrustes", "rcsls"})
RANDOM: frozenset[Method] = frozenset({"quantized_wasserstein", "stochastic_wasserstein", "self_learning"})


class Settings(Config):
    """The fields of the stage that its restarts need. Words are counted from the most frequent one."""

    method: Method = "quantized_wasserstein"
    anchor_words: PositiveInt = 20_000  # of each language that the method, the refinement and the criterion use
    start_words: int = Field(default=2500, ge=2, le=10_000)  # of the convex start, similarity rows, Gromov-Wasserstein
    start_iterations: PositiveInt = 100  # of Frank-Wolfe

    sampler: Sampler = "lloyd"  # of qWP
    centroids: int | None = Field(default=None, ge=2)  # null: 8 % of the anchor words, at most 2000
    sample_words: NonNegativeInt = 0  # drawn before the centroids are chosen; 0: k^2 ln k
    iterations: PositiveInt = 30
    epsilon: PositiveFloat = 0.05  # of the entropy; the squared distances of unit vectors are 0 to 4
    relaxation: PositiveFloat | None = None  # of the marginals (KL) of qWP; null: balanced
    batch_words: PositiveInt = 500  # of WP's first epoch
    batch_iterations: PositiveInt = 5000  # of WP's first epoch

    restarts: int = Field(default=4, ge=1, le=1000)  # of methods that are random; the best criterion is kept
    refinement_rounds: NonNegativeInt = 20  # a maximum; the paper has 5, after which en-es has not converged
    seed: NonNegativeInt = 0

    def centroids_of(self, words: int) -> int:
        """How many centroids stand for `words` words."""
        return self.centroids or max(2, min(MOST_CENTROIDS, words * CENTROID_PERCENT // 100))
