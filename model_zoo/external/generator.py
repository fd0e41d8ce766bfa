"""A generator in another environment, seen from here: the contract's requests out, checked samples in."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from av_bench.contracts import (
    Clip,
    ClipSet,
    Generated,
    GenerationJob,
    MediaError,
    Modality,
    Place,
    Reason,
    SampleKey,
    SampleSource,
    UsageError,
    clip_seed,
    unknown_name,
)
from av_bench.runtime.files import write_atomically
from av_bench.schema import read_json
from model_zoo.external.checks import check, common_level
from model_zoo.external.contract import Item, Request, read_result, write_lines
from model_zoo.external.extras import read_extras
from model_zoo.external.launching import launch, one_device
from model_zoo.external.runner import DriverJob, Settled
from model_zoo.external.silent import at_rate, silent_copy

if TYPE_CHECKING:
    from model_zoo.baselines.schema import Manifest
    from model_zoo.baselines.site import Site

_GENERATION = ("steps", "guidance", "negative_prompt")
WITH_STEPS = ("timeout", "extras")  # options of a baseline whose commands stand in its manifest


class ExternalProgram(SampleSource):
    """Runs a manifest's driver over the whole list in one process (a new one after a crash or a timeout)."""

    options: ClassVar[Mapping[str, str]] = {
        "steps": "of its sampler (default: the model's own)",
        "guidance": "strength of its guidance (default: the model's own)",
        "negative_prompt": "text to steer away from",
        "variant": "which of its checkpoints or sizes",
        "dtype": "float32 (default), float16 or bfloat16",
        "timeout": "seconds for the whole list",
        "extras": "JSONL file of id and more inputs",
    }

    def __init__(self, manifest: Manifest, site: Site, **options: Any) -> None:
        for key in options:
            if key not in self.options:
                raise UsageError(f"baseline {manifest.name}: {unknown_name('option', key, self.options)}")
            if manifest.driver.steps is not None and key not in WITH_STEPS:
                raise UsageError(f"baseline {manifest.name} is run by steps, write {key} there (`setup --steps FILE`)")
        self.manifest, self.site, self.given = manifest, site, options
        self.name = manifest.name
        self.sample_rate = manifest.native.rate
        uses: dict[Modality, str] = {"video": manifest.conditions.video, "text": manifest.conditions.text}
        self.conditions: frozenset[Modality] = frozenset(name for name, use in uses.items() if use != "unused")
        self.training_sets = tuple(s.name for s in manifest.training_sets)
        self.metric_networks = manifest.metric_networks_used
        self.extras = read_extras(options.get("extras"), manifest.conditions.extras, manifest.name)
        self.seconds = 0.0
        self.job: DriverJob | None = None

    def setup(self, clips: ClipSet, seconds: float, seed: int) -> None:
        """Refuse what cannot work: lengths the model does not give, conditions the set does not have."""
        del seed
        wanted = self.manifest.native.request(seconds)
        if wanted is None:
            raise UsageError(
                f"baseline {self.name} gives at most {self.manifest.native.max_s:g} s, the protocol scores "
                f"{seconds:g} s; choose a protocol with a shorter window (--protocol)"
            )
        self.seconds = wanted
        for use, field_ in ((self.manifest.conditions.video, "video"), (self.manifest.conditions.text, "text")):
            lacking = [c.id for c in clips.clips if (c.video if field_ == "video" else c.text) is None]
            if use == "required" and lacking:
                what = f"{len(lacking)} of {len(clips.clips)} clips of {clips.name} have none, e.g. {lacking[0]}"
                raise UsageError(f"baseline {self.name} needs {field_} for every clip; {what}")
        lacking = [c.id for c in clips.clips if set(self.manifest.conditions.extras) - set(self.extras.get(c.id, {}))]
        if lacking:
            raise UsageError(
                f"baseline {self.name} needs {', '.join(self.manifest.conditions.extras)} for every clip; "
                f"{len(lacking)} have none, e.g. {lacking[0]}. Give a file: --model {self.name}:extras=FILE.jsonl"
            )

    def produce(self, job: GenerationJob) -> Iterator[Generated]:
        """Settle every (clip, k) that is missing. Accepted files are kept as they came, byte for byte.

        A (clip, k) may come twice; the later one counts. The job's folder keeps request, items, rows and log.
        """
        folder = job.folder.resolve()
        items, refused = [], []
        for clip, k in job.todo:
            try:
                items.append(self._item(clip, k, job.seed))
            except MediaError as error:
                refused.append(Generated(clip.id, k, reason=error.reason, detail=str(error)))
        yield from refused
        folder.mkdir(parents=True, exist_ok=True)
        request = self._request(folder, job.seed, job.samples, job.device)
        self._same_request(folder, request)
        command = launch(self.manifest, self.site, folder, job.device)
        self.job = DriverJob(folder, request, command, self.manifest.driver.rows == "list")
        for settled in self.job.run(items):
            yield self._judged(settled, job.place)

    def finish(self, job: GenerationJob) -> None:
        """Leave the whole list in the job folder, however many processes it took, and nothing half-done."""
        folder = job.folder
        self._same_request(folder, self._request(folder.resolve(), job.seed, job.samples, "cpu"))
        items = []
        for clip in job.clips:
            try:
                items += [self._item(clip, k, job.seed) for k in range(job.samples)]
            except MediaError:
                continue  # it is in the ledger
        for left in folder.parent.rglob(".*.part"):  # of processes that were killed; the run is ours alone now
            left.unlink()
        shutil.rmtree(folder / "outputs", ignore_errors=True)  # files that were taken before a kill, or refused
        (folder / "outputs").mkdir(parents=True)
        write_atomically(folder / "items.jsonl", write_lines(items))

    def flags(self, files: Mapping[SampleKey, Path]) -> dict[SampleKey, tuple[Reason, str]]:
        """Loudness that was set after generation and is not declared: record of every sample."""
        if self.manifest.self_normalised:
            return {}
        detail = common_level([files[key] for key in sorted(files)])
        return {} if detail is None else dict.fromkeys(files, (Reason.LOUDNESS_CHANGED, f"{detail}, not declared"))

    def describe(self, folder: Path) -> dict[str, Any]:
        """For the record: manifest, fingerprint, parameters (counted by the driver, else as declared), problems."""
        record: dict[str, Any] = {"manifest": self.manifest.digest, "driver_status": self.manifest.driver.status}
        if self.manifest.steps_digest:
            record["driver_status"] = "steps of the user's own"
            record["steps"] = self.manifest.steps_digest
        record |= {"paper": [vars(row) for row in self.manifest.paper], "network": False}
        if self.manifest.metric_networks_used:
            record["metric_networks_used"] = dict(self.manifest.metric_networks_used)
        if self.manifest.parameters is not None:
            record["parameters"] = {"count": self.manifest.parameters.count, "source": self.manifest.parameters.source}
        if (folder / "result.json").is_file():
            with contextlib.suppress(UsageError):  # it is among the problems
                result = read_result(folder / "result.json")
                record["fingerprint"] = dict(result.fingerprint)
                if result.parameters is not None:
                    record["parameters"] = {"count": result.parameters, "source": "measured"}
        if (folder / "problems.json").is_file():
            record["problems"] = read_json(folder / "problems.json", list)
        return record

    # ------------------------------------------------------------------ parts

    def _judged(self, settled: Settled, place: Place) -> Generated:
        clip_id, k = settled.key
        row = settled.row
        if row is None:
            return Generated(clip_id, k, reason=settled.reason, detail=settled.detail)
        if row.status != "ok":
            return Generated(clip_id, k, reason=Reason.GENERATOR_FAILED, detail=f"{row.status}: {row.reason}")
        assert self.job is not None
        if row.seed is not None and row.seed != self.job.seeds[settled.key]:
            detail = f"made with seed {row.seed}, asked for was {self.job.seeds[settled.key]}"
            return Generated(clip_id, k, reason=Reason.GENERATOR_FAILED, detail=detail)
        try:
            found = check(row, self.job.output_dir, self.manifest.native)
        except MediaError as error:
            if error.reason is not Reason.PATH_ESCAPE:
                (self.job.output_dir / str(row.path)).unlink(missing_ok=True)
            return Generated(clip_id, k, reason=error.reason, detail=f"{row.path}: {error.detail}")
        path = place(clip_id, k, found.payload, found.suffix)
        (self.job.output_dir / str(row.path)).unlink(missing_ok=True)
        timings = dict(row.seconds) if row.warm else {}
        return Generated(clip_id, k, path=path, sample_rate=found.sample_rate, timings=timings)

    def _item(self, clip: Clip, k: int, seed: int) -> Item:
        item = Item(clip.id, k, clip_seed(seed, clip.id, k), extras=self.extras.get(clip.id, {}))
        if "video" in self.conditions and clip.video is not None:
            video = silent_copy(clip.video)
            item = replace(
                item,
                video=str(video.path.resolve()),
                fps=video.fps,
                width=video.width,
                height=video.height,
                duration=video.duration,
            )
            steps = self.manifest.driver.steps
            if steps is not None and steps.reencode is not None:
                other = at_rate(video, steps.reencode.fps, steps.reencode.silence)
                item = replace(item, extras={**item.extras, "video_fps": str(other.resolve())})
        if "text" in self.conditions and clip.text is not None:
            kind: Literal["label", "caption"] = "label" if clip.text == clip.label else "caption"
            item = replace(item, text=clip.text, text_kind=kind)
        return item

    def _request(self, folder: Path, seed: int, samples: int, device: str) -> Request:
        driver = self.manifest.driver
        extra = dict(driver.options) if driver.steps is None else asdict(driver.steps)
        generation = {key: self.given.get(key) for key in _GENERATION} | {"extra": extra}
        model = {
            "name": self.name,
            "variant": self.given.get("variant"),
            "weights_dir": self.site.weights,
            "revision": self.manifest.revision,
            "manifest": self.manifest.digest,
        }
        if self.manifest.steps_digest:
            model["steps"] = self.manifest.steps_digest
        return Request(
            run_id=folder.parent.name,
            model=model,
            task=self.manifest.task,
            seconds=self.seconds,
            seed=seed,
            samples_per_item=samples,
            generation=generation,
            device="cuda" if one_device(device) else device,
            dtype=str(self.given.get("dtype", "float32")),
            output_dir=str(folder / "outputs"),
            cache_dir=str(folder / "cache"),
            limits={"timeout_s": self.given.get("timeout"), "load_s": driver.load_s, "item_s": driver.item_s},
            warmup_items=driver.warmup,
        )

    def _same_request(self, folder: Path, request: Request) -> None:
        """A resumed job must be the job that was started: another manifest or option gives other samples."""
        path = folder / "request.json"
        if not path.is_file():
            return
        old = read_json(path, dict)
        new = {"model": dict(request.model), "generation": dict(request.generation), "seconds": request.seconds}
        differs = [key for key, value in new.items() if old.get(key) != json.loads(json.dumps(value))]
        if differs:
            raise UsageError(
                f"{folder} was started with a different {', '.join(differs)} for {self.name}; choose another --out, "
                "or remove that run folder"
            )
