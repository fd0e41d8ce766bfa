"""`av-bench train nano-tagger | nano-bind | nano-sync`: render the corpus, train, measure on held-out encoded clips."""

from __future__ import annotations

from pathlib import Path

import protocols
from av_bench.contracts import UsageError
from av_bench.devices import check_device
from av_bench.heldout import quality
from av_bench.progress import Reporter
from av_bench.store import home
from protocols.load import SetRequest, read_clips


def train_nano(
    network: str,
    *,
    out: Path,
    clips: int,
    corpus_folder: Path | None = None,
    epochs: int | None = None,
    device: str = "cpu",
    workers: int = 2,
    test_clips: int = 256,
    quiet: bool = False,
) -> Path:
    """Train one embedded network; returns the weights file. The log with the held-out quality lies beside it."""
    from dataclasses import replace

    from model_zoo.nano import data, train

    if network not in train.RECIPES:
        train.build(network, 1)  # names the available
    recipe = train.RECIPES[network]
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    if clips < recipe.batch:
        raise UsageError(f"--clips must be at least one batch of {recipe.batch}, got {clips}")
    check_device(device)
    reporter = Reporter(quiet)
    folder = corpus_folder or home() / "corpus" / f"impacts-train-{clips}"
    with reporter.stage("render corpus", clips) as stage:
        corpus = data.corpus(folder, "train", clips, workers, lambda done, _: stage.advance(done - stage.done))
    file = out / f"{network}.safetensors"
    start = _start(recipe.start, out)
    trained, log = train.train(recipe, corpus, device, reporter.say, lambda n, _: train.save_network(n, file), start)
    train.save_network(trained, file)
    held_out_clips = read_clips(protocols.load_set("impacts"), SetRequest(limit=test_clips)).clips
    held_out = quality(network, held_out_clips, corpus.labels, file)
    train.save_log(out / f"{network}.json", recipe, clips, log, held_out)
    reporter.say(f"{network}: held out on impacts test: {held_out}")
    return file


def _start(name: str | None, out: Path) -> Path | None:
    """The trained network a recipe starts from: the one beside the output, else the embedded one."""
    if name is None:
        return None
    from av_bench.extractors.nano import WEIGHTS

    for folder in (out, WEIGHTS):
        if (folder / f"{name}.safetensors").is_file():
            return folder / f"{name}.safetensors"
    raise UsageError(f"this recipe starts from {name}; train it first: av-bench train {name} --out {out}")
