"""Metrics as pure functions: arrays in, numbers out, one file per family. Reference first, generated second."""

from av_bench.metrics.desync import desync, expected_offset, offset_grid, offset_histogram, signed_offsets
from av_bench.metrics.divergence import kl_divergence
from av_bench.metrics.frechet import FrechetInfinity, frechet_distance, frechet_from_statistics, frechet_infinity
from av_bench.metrics.gaussian import GaussianStatistics
from av_bench.metrics.inception import inception_score
from av_bench.metrics.intervals import (
    Bounds,
    Interval,
    PairedDifference,
    cluster_bootstrap_mean,
    frechet_interval,
    inception_interval,
    paired_difference,
)
from av_bench.metrics.onset import OnsetScores, detect_onsets, detect_with_loudness, match_onsets, onset_scores
from av_bench.metrics.similarity import cosine_similarity, mean_of_unit_views

__all__ = [
    "Bounds",
    "FrechetInfinity",
    "GaussianStatistics",
    "Interval",
    "OnsetScores",
    "PairedDifference",
    "cluster_bootstrap_mean",
    "cosine_similarity",
    "desync",
    "detect_onsets",
    "detect_with_loudness",
    "expected_offset",
    "frechet_distance",
    "frechet_from_statistics",
    "frechet_infinity",
    "frechet_interval",
    "inception_interval",
    "inception_score",
    "kl_divergence",
    "match_onsets",
    "mean_of_unit_views",
    "offset_grid",
    "offset_histogram",
    "onset_scores",
    "paired_difference",
    "signed_offsets",
]
