"""Work of `av-bench train` and `av-bench features`: embedded networks, MMAudio, its VAEs, its training features.

Training itself lives in ``model_zoo`` and knows no pipeline; what it needs of one (metrics, audits) is handed in here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import protocols
from av_bench.contracts import UsageError, unknown_name
from av_bench.engines.choose import Items, Place, engine_for
from av_bench.engines.contract import Engine, Lost
from av_bench.runtime.devices import check_device
from av_bench.runtime.files import home
from av_bench.runtime.progress import Reporter, Stage
from av_bench.schema import load_yaml
from protocols.definitions import SetRequest

if TYPE_CHECKING:
    from model_zoo.mmaudio.features.encode import TrainingCodec
    from model_zoo.mmaudio.interfaces import Conditioner
    from model_zoo.mmaudio.training.metrics import Evaluation
    from model_zoo.mmaudio.training.recipe import FlowRecipe
    from model_zoo.mmaudio.vae_training.recipes import VAERecipe


log = logging.getLogger(__name__)


def train_nano(
    network: str,
    *,
    out: Path,
    clips: int,
    corpus_folder: Path | None = None,
    epochs: int | None = None,
    device: str | None = None,
    workers: int = 2,
    test_clips: int = 256,
    quiet: bool = False,
) -> Path:
    """Train one embedded network; returns the weights file. The log with the held-out quality is written beside it."""
    from av_bench.training.held_out import quality
    from model_zoo.scorers import train
    from model_zoo.scorers.corpus import corpus as render_corpus
    from protocols.readers.read import read_clips

    if network not in train.RECIPES:
        train.build(network, 1)  # names the available
    recipe = train.RECIPES[network]
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    if clips < recipe.batch:
        raise UsageError(f"--clips must be at least one batch of {recipe.batch}, got {clips}")
    device = "cpu" if device is None else device
    check_device(device)
    reporter = Reporter(quiet)
    folder = corpus_folder or home() / "corpus" / f"impacts-train-{clips}"
    with reporter.stage("render corpus", clips) as stage:
        corpus = render_corpus(folder, "train", clips, workers, lambda done, _: stage.advance(done - stage.done))
    file = out / f"{network}.safetensors"
    start = _start(recipe.start, out)
    trained, log = train.train(recipe, corpus, device, reporter.say, lambda n, _: train.save_network(n, file), start)
    train.save_network(trained, file)
    held_out_clips = read_clips(protocols.load_set("impacts"), SetRequest(limit=test_clips)).clips
    held_out = quality(network, held_out_clips, corpus.labels, file)
    train.save_log(out / f"{network}.json", recipe, clips, log, held_out)
    reporter.say(f"{network}: held out on impacts test: {held_out}")
    return file


def train_mmaudio_nano(
    generation: Literal[1, 2],
    *,
    out: Path,
    clips: int,
    corpus_folder: Path | None,
    changes: Sequence[str],
    device: str | None,
    workers: int,
    quiet: bool,
) -> Path:
    """All stages of the embedded MMAudio, on the CPU unless a device is named; returns the folder of its weights."""
    from model_zoo.mmaudio.nano import recipe

    device = "cpu" if device is None else device
    check_device(device)
    folder = corpus_folder or home() / "corpus" / f"impacts-train-{clips}"
    stage = Stage("render corpus", clips, quiet)  # lines, no bar: the stages after it say their own
    return recipe.train_nano(
        out,
        clips=clips,
        corpus_folder=folder,
        device=device,
        workers=workers,
        progress=lambda done, _: stage.advance(done - stage.done),
        generation=generation,
        changes=tuple(changes),
        report=Reporter(quiet).say,
    )


def train_mmaudio(
    config: str,
    *,
    out: Path,
    changes: Sequence[str] = (),
    exclude: Path | None = None,
    metrics_on: Path | None = None,
    limit: int = 64,
    device: str | None = None,
    quiet: bool = False,
) -> Path:
    """Train a config of MMAudio on its feature folders; returns the folder of the final weights.

    ``exclude`` is an audit's JSON file: training recordings it found in the test set are left out, by name.
    ``metrics_on`` is a folder of videos that is sampled and scored every ``every.metrics`` steps. ``device`` takes the
    place of the config's ``run.device``; None leaves that as it is.
    """
    from model_zoo.mmaudio.training.distributed import device_of
    from model_zoo.mmaudio.training.loop import train
    from model_zoo.mmaudio.training.recipe import read_recipe

    more = [] if device is None else [f"run.device={device}"]
    excluded = frozenset[str]() if exclude is None else _excluded(exclude)
    recipe = read_recipe(config, [*more, *changes])
    chosen = str(device_of(recipe.run))
    check_device(chosen)
    evaluation = _evaluation(recipe, out, metrics_on, limit, chosen) if metrics_on is not None else None
    return train(recipe, out, evaluation, quiet, excluded)


def _excluded(path: Path) -> frozenset[str]:
    """Training recordings that an audit found; what it leaves open is logged. UsageError when it found none."""
    from av_bench.audit.report import load_audit

    audit = load_audit(path)
    audit.check_training()
    if audit.not_compared:
        log.warning("%s", audit.warning())
    return audit.training


def _evaluation(recipe: FlowRecipe, out: Path, data: Path, limit: int, device: str) -> Evaluation:
    """Sampling and scoring for the training loop, with the published codec and conditions of the config's variant.

    MissingRequirement when a weight file of theirs, or of a metric's network, is not there.
    """
    from av_bench.pipeline.plan import RunOptions
    from av_bench.training.run_evaluator import RunEvaluator
    from model_zoo.mmaudio.sampling import published
    from model_zoo.mmaudio.training.loop import Evaluation
    from protocols.readers.read import read_clips

    variant = recipe.network.get("variant")
    if variant is None:
        raise UsageError(
            f"--metrics-on: config {recipe.name} lists the fields of its network, so no codec and conditions are known "
            "to sample with; use a config whose network names a variant, e.g. {variant: mmaudio-s-16k} in small_16k, "
            "or leave --metrics-on out"
        )
    generator = published.wrap_network(str(variant), device)
    options = RunOptions(set="clips", data=data, protocol="vggsound-8s", device=device)
    evaluator = RunEvaluator(options, out / "metrics")
    evaluator.check()
    clips = read_clips(protocols.load_set("clips"), SetRequest(data=data, limit=limit))
    return Evaluation(evaluator, clips, generator)


def vae_recipe(network: str, changes: Sequence[str] = ()) -> VAERecipe | None:
    """The VAE recipe of that name (``vae-16k``) or in that YAML file; None for anything else."""
    from model_zoo.mmaudio.vae_training.recipes import RECIPES, read_recipe

    path = Path(network)
    if path.suffix in (".yaml", ".yml"):
        try:
            content = load_yaml(path)
        except UsageError:
            return None  # the next reader says what is wrong
        return read_recipe(path, changes) if isinstance(content, dict) and "recipe" in content else None
    if not network.startswith("vae-"):
        return None
    names = [f"vae-{name}" for name in RECIPES]
    if network not in names:
        raise UsageError(unknown_name("VAE recipe", network, names))
    return read_recipe(network.removeprefix("vae-"), changes)


def train_vae(recipe: VAERecipe, data: Path, *, out: Path, device: str | None = None, quiet: bool = False) -> Path:
    """Train a VAE in the processes that torchrun started; the first one decodes ``data``. Returns the weights file."""
    from model_zoo.mmaudio.training.distributed import cluster
    from model_zoo.mmaudio.training.recipe import RunSettings
    from model_zoo.mmaudio.vae_training import loop
    from model_zoo.mmaudio.vae_training.data import open_items

    with cluster(RunSettings(device=device or "auto")) as processes, loop.folder_lock(out, processes) as mine:
        if not mine:
            raise UsageError(f"{out} is being written by another training run; wait for it, or choose another --out")
        report = Reporter(quiet or not processes.first).say
        items = open_items(data, recipe, out, report) if processes.first else None
        processes.wait()  # as long as decoding takes
        if items is None:
            items = open_items(data, recipe, out, decode=False)
        loop.train(recipe, items, out, str(processes.device), report, processes)
    return out / loop.WEIGHTS


@dataclass(frozen=True)
class FeatureWork:
    """The task: one worker's share of ``extract_features``. A worker yields the lines that it has to say."""

    arguments: Mapping[str, Any]

    def open(self, device: str) -> Callable[[Items], Iterator[str]]:
        """A worker on a device; a part is the number of a worker."""

        def work(part: Items) -> Iterator[str]:
            del part
            yield from extract_features(**{**self.arguments, "device": device, "quiet": True})

        return work


def extract_features_on(place: Place, **arguments: Any) -> Iterator[str]:
    """``extract_features`` by one worker per device; they share the shards among them. Yields what came of it."""
    place.check()
    if place.local:
        yield from extract_features(device=place.devices[0], **arguments)
        return
    parts = [Items((f"worker {number}",)) for number in range(len(place.devices))]
    engine: Engine[Items, str] = engine_for(place)
    lines: list[str] = []
    for event in engine.run(FeatureWork(arguments), parts):
        if isinstance(event, Lost):
            raise UsageError(f"{event.part.clips[0]}: {event.detail}; run it again for what is left")
        lines.append(event)
    yield from lines[-2:]


def extract_features(
    set_name: str,
    data: Path,
    *,
    out: Path,
    rate: Literal["16k", "44k"] | None = None,
    networks: Literal["published", "nano"] = "published",
    table: Path | None = None,
    vae: Path | None = None,
    video: bool = False,
    seconds: float = 8.0,
    rule: Literal["paper", "code"] = "paper",
    crops: int = 5,
    shard_size: int = 4096,
    device: str = "cpu",
    quiet: bool = False,
) -> Iterator[str]:
    """Make every shard of ``out`` that is neither done nor in another worker's hands; yields what came of it."""
    from model_zoo.mmaudio.features.crop_plan import CropPlan
    from model_zoo.mmaudio.features.encode import MediaFeatures
    from model_zoo.mmaudio.features.work import extract, prepare, progress_line, unfinished
    from protocols.readers.read import read_clips

    check_device(device)
    plan = CropPlan(rule, crops, video, shard_size)
    reporter = Reporter(quiet)
    request = SetRequest(data=data, table=table, say=reporter.say_once)
    found = read_clips(protocols.load_set(set_name), request).clips
    clips = [replace(clip, text=clip.text or clip.label) for clip in found]  # class names are texts (section 3.5.1)
    codec, conditioner = _feature_networks(networks, rate, vae, seconds)
    encoder = MediaFeatures(codec, conditioner, seconds, device)
    for name in extract(out, clips, plan, encoder):
        reporter.say(f"{out / name}: done")
    work = prepare(out, clips, plan, encoder)
    yield f"{out}: {progress_line(out, work)}"
    left = unfinished(out, work)
    yield f"{out}: {len(left)} shards are still in other workers' hands" if left else f"{out}: complete"


def _feature_networks(
    networks: Literal["published", "nano"], rate: Literal["16k", "44k"] | None, vae: Path | None, seconds: float
) -> tuple[TrainingCodec, Conditioner]:
    """Codec and conditioner that features are made with; nothing of them that only sampling needs is built.

    MissingRequirement names all files that are not there.
    """
    if networks == "nano":
        from model_zoo.mmaudio.nano.conditioner import STRETCH, NanoConditioner
        from model_zoo.mmaudio.nano.model import WEIGHTS, load

        if rate == "44k" or vae is not None or seconds != STRETCH:
            raise UsageError(f"features --networks nano: 16k, {STRETCH:g} s, and its own VAE; leave the others out")
        _, nano, sight = load(WEIGHTS)
        return nano, NanoConditioner(sight)
    from model_zoo.mmaudio.codec.published import ENTRIES, OfficialCodec
    from model_zoo.mmaudio.conditions import clip_encoder
    from model_zoo.mmaudio.conditions.published import OfficialConditioner
    from model_zoo.mmaudio.sampling.published import require_all_files

    if rate is None:
        raise UsageError("features: --rate is missing: 16k or 44k (or --networks nano)")
    require_all_files(*([ENTRIES[rate]] if vae is None else []), clip_encoder.ENTRY, "synchformer")
    return OfficialCodec(rate, vae, decodes=False), OfficialConditioner()


def import_features(folder: Path, table: Path, *, out: Path, empty_text: Path | None, dtype: str) -> int:
    """Samples of a published feature folder that were written into ``out``."""
    from model_zoo.mmaudio.features.memmap import import_features as write
    from model_zoo.mmaudio.training.setup import empty_text_of_file

    empty = None if empty_text is None else empty_text_of_file(empty_text, f"--empty-text {empty_text}")
    return write(folder, table, out, empty, dtype)


def merge_adapters(adapters: Path, out: Path) -> Path:
    """Write the whole network of adapters; UsageError for a file that holds none."""
    from dataclasses import asdict

    from model_zoo.mmaudio.flow.load import header_of, read_about, read_flow
    from model_zoo.mmaudio.training.checkpoints import write_weights

    about = read_about(adapters)
    if "lora" not in about:
        raise UsageError(f"{adapters}: holds no adapters but a whole network; nothing to merge")
    found = read_flow(str(adapters))
    assert found.config is not None  # adapters say their network
    about |= {"network": asdict(found.config)}
    del about["lora"]
    write_weights(out, found.tensors, header_of(about))
    return out


def _start(name: str | None, out: Path) -> Path | None:
    """The trained network a recipe starts from: the one beside the output, else the embedded one."""
    if name is None:
        return None
    from av_bench.extractors.nano import WEIGHTS

    for folder in (out, WEIGHTS):
        if (folder / f"{name}.safetensors").is_file():
            return folder / f"{name}.safetensors"
    raise UsageError(f"this recipe starts from {name}; train it first: av-bench train {name} --out {out}")
