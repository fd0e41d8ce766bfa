"""What is measured: from a protocol and a choice of metrics to the built metrics and their extractors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import protocols
from av_bench import registry
from av_bench.contracts import Flavour, Metric, Need, UsageError, plugin_boundary, unknown_name
from av_bench.features.extractor_set import ExtractorSet
from av_bench.schema import build_arguments


@dataclass(frozen=True)
class Measurement:
    """A protocol's metrics with the extractors they need."""

    protocol: protocols.Protocol
    flavour: Flavour
    metrics: tuple[Metric, ...]
    extractors: ExtractorSet

    @property
    def needs(self) -> list[Need]:
        """All needs of the metrics, and of pair extractors' inputs; each once."""
        return list(dict.fromkeys(self._needs()))

    def _needs(self) -> Iterator[Need]:
        for metric in self.metrics:
            yield from needs_of(metric, self.extractors)


def measure(
    protocol: protocols.Protocol, wanted: Sequence[str] | None, device: str, flavour: Flavour | None = None
) -> Measurement:
    """Build the metrics of a protocol and look for everything that they need, before any work.

    ``wanted`` are names of metrics; ``+NAME`` adds an optional one, or one of a plugin, to all of the usual ones.
    UsageError names the metric whose options, extractor or output is wrong; MissingRequirement the weights that are
    missing.
    """
    chosen: Flavour = flavour or protocol.flavour
    metrics, extractors = _resolved(protocol, wanted, device, chosen)
    extractors.check(protocol.seconds)
    return Measurement(protocol, chosen, metrics, extractors)


def extractors_for(protocol: protocols.Protocol, wanted: Sequence[str] | None = None) -> list[str]:
    """Names of all extractors that the metrics of a protocol need; nothing is looked for on disk."""
    return _resolved(protocol, wanted, "cpu", protocol.flavour)[1].names


def _resolved(
    protocol: protocols.Protocol, wanted: Sequence[str] | None, device: str, flavour: Flavour
) -> tuple[tuple[Metric, ...], ExtractorSet]:
    metrics = tuple(
        build_metric(f"protocol {protocol.name}", name, options) for name, options in _chosen(protocol, wanted).items()
    )
    try:
        extractors = ExtractorSet([need for metric in metrics for need in metric.needs], device, flavour)
    except UsageError as error:
        raise UsageError(f"protocol {protocol.name}: {error}") from error
    return metrics, extractors


def needs_of(metric: Metric, extractors: ExtractorSet) -> Iterator[Need]:
    """A metric's needs, and for pair extractors those of their inputs."""
    for need in metric.needs:
        yield need
        yield from extractors.inputs_of(need)


def _chosen(protocol: protocols.Protocol, wanted: Sequence[str] | None) -> dict[str, Mapping[str, Any]]:
    """Column name -> options, in the protocol's order; metrics of plugins that were asked for come last."""
    known = {**protocol.metrics, **protocol.optional}
    names = [name.removeprefix("+") for name in wanted or ()]
    if all(name.startswith("+") for name in wanted or ()):
        names += protocol.metrics
    chosen = {name: options for name, options in known.items() if name in names}
    plugins = [name for name in registry.names("metrics") if registry.origin("metrics", name) != "av-bench"]
    for name in names:
        if name not in known and name not in plugins:
            raise UsageError(f"protocol {protocol.name}: {unknown_name('metric', name, [*known, *plugins])}")
        chosen.setdefault(name, {"kind": name})
    return chosen


def build_metric(where: str, name: str, options: Mapping[str, Any]) -> Metric:
    """The metric of one column from its kind and options. UsageError names both when an option is wrong."""
    where = f"{where}, metric {name}"
    kind = str(options["kind"])
    cls = registry.load("metrics", kind)
    arguments = build_arguments(cls.__init__, {k: v for k, v in options.items() if k != "kind"}, where, skip=2)
    with plugin_boundary(f"metric {kind} ({registry.origin('metrics', kind)}), column {name}"):
        metric: Metric = cls(name, **arguments)
    return metric
