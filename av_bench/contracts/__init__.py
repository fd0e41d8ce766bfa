"""What all packages share: clips, decoded media, features, metrics, sample sources, and the errors they raise.

Conventions
-----------
* Times are seconds, sample rates Hz, audio float32 in [-1, 1] with shape ``(channels, samples)``,
  frames uint8 RGB with shape ``(frames, 3, height, width)``.
* The reference side comes first, the generated side second, everywhere.
* Rows of features are ordered by clip id.
* A number that cannot be computed is absent, never NaN, None, 0 or -1.

Nothing here imports anything else of the package, and nothing heavy is imported before it is used.
"""

from av_bench.contracts.clips import DEFAULT_SEED, Clip, ClipField, ClipSet, clip_seed
from av_bench.contracts.errors import (
    AvBenchError,
    MediaError,
    MetricError,
    MissingRequirement,
    PluginError,
    Reason,
    UsageError,
    is_out_of_memory,
    plugin_boundary,
    shortfall,
    unknown_name,
)
from av_bench.contracts.extractors import Extractor, PairExtractor
from av_bench.contracts.generators import (
    Evaluator,
    Generated,
    GenerationJob,
    Generator,
    Place,
    SampleKey,
    SampleSource,
)
from av_bench.contracts.media import SILENCE_PEAK, Decoded, Modality, VideoRequest
from av_bench.contracts.metrics import Flavour, GaussianRows, Metric, MetricInputs, Need, Score, Side
from av_bench.contracts.text import check_id, leads_out, printable, shortened

__all__ = [
    "DEFAULT_SEED",
    "SILENCE_PEAK",
    "AvBenchError",
    "Clip",
    "ClipField",
    "ClipSet",
    "Decoded",
    "Evaluator",
    "Extractor",
    "Flavour",
    "GaussianRows",
    "Generated",
    "GenerationJob",
    "Generator",
    "MediaError",
    "Metric",
    "MetricError",
    "MetricInputs",
    "MissingRequirement",
    "Modality",
    "Need",
    "PairExtractor",
    "Place",
    "PluginError",
    "Reason",
    "SampleKey",
    "SampleSource",
    "Score",
    "Side",
    "UsageError",
    "VideoRequest",
    "check_id",
    "clip_seed",
    "is_out_of_memory",
    "leads_out",
    "plugin_boundary",
    "printable",
    "shortened",
    "shortfall",
    "unknown_name",
]
