"""Foreign side of the generator contract: one file, standard library only, Python 3.8 and newer.

A driver script runs inside a model's own environment and looks like this::

    from avbench_driver import Job

    job = Job.from_arguments()
    model = load(job.request["model"]["weights_dir"], job.request["device"])

    def make(item):
        with job.timed("features"):
            features = encode(item["video"])
        with job.timed("generation"):
            latent = model(features, item["text"], seed=item["seed"])
        with job.timed("decoding"):
            audio = decode(latent)
        return audio, 16000

    job.run(make, parameters=count(model))

Audio is float, ``(channels, samples)`` or ``(samples,)``, as the network gave it: nothing is trimmed, resampled, mixed
or made louder. It may be a list, an array or a tensor, or the path of a wav or flac file the model wrote itself.
"""

from __future__ import annotations

import array
import contextlib
import hashlib
import json
import os
import platform
import shutil
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

VERSION = 1


class Job:
    """One request: its items, its clock and its answer."""

    def __init__(self, request_file: str) -> None:
        self.folder = Path(request_file).absolute().parent
        self.request: dict[str, Any] = json.loads(Path(request_file).read_text(encoding="utf8"))
        found = self.request.get("contract_version")
        if found != VERSION:
            raise SystemExit(f"{request_file}: contract version {found!r}, this helper speaks {VERSION}")
        self.output_dir = Path(self.request["output_dir"])
        self.rows_file = self.folder / "outputs.jsonl"
        self.seconds: dict[str, float] = {}
        self._stamp = ""
        self._counts = {"ok": 0, "failed": 0, "skipped": 0}

    @classmethod
    def from_arguments(cls) -> Job:
        """The request named by the first argument or by ``AV_BENCH_REQUEST``."""
        name = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("AV_BENCH_REQUEST", "")
        if not name:
            raise SystemExit(f"usage: {sys.argv[0]} request.json")
        return cls(name)

    def items(self) -> list[dict[str, Any]]:
        """Items that have no row yet, in order."""
        done = {(row["id"], row["k"]) for row in self._rows()}
        lines = (self.folder / "items.jsonl").read_text(encoding="utf8").split("\n")
        items = [json.loads(line) for line in lines if line.strip()]
        return [item for item in items if (item["id"], item["k"]) not in done]

    def _rows(self) -> list[dict[str, Any]]:
        """Rows written so far; a line torn by a kill is cut off, so that the next one starts clean."""
        if not self.rows_file.exists():
            return []
        with self.rows_file.open("rb+") as handle:
            payload = handle.read()
            whole = payload[: payload.rfind(b"\n") + 1]
            if len(whole) < len(payload):
                handle.truncate(len(whole))
        return [json.loads(line) for line in whole.decode("utf8").split("\n") if line]

    def run(
        self,
        make: Callable[[dict[str, Any]], tuple[Any, int]],
        parameters: int | None = None,
        weights: Sequence[Path | str] = (),
        packages: Sequence[str] = ("numpy", "torch"),
    ) -> None:
        """Call ``make(item) -> (audio, sample rate)`` for every open item and write the answer.

        An exception of ``make`` fails that item and the next one is tried. ``parameters`` is the number of weights of
        all networks used; ``weights`` are the files to hash.
        """
        fingerprint = self._fingerprint(weights, packages)
        for number, item in enumerate(self.items()):
            self.start(item)
            try:
                audio, rate = self._measured(make, item)
                warm = number >= int(self.request["warmup_items"])
                self.write(item, audio, rate, warm=warm, peak_gpu_bytes=_gpu_peak())
            except Exception as error:
                traceback.print_exc()
                self.fail(item, f"{type(error).__name__}: {error}")
        self.finish(fingerprint, parameters)

    def _measured(self, make: Callable[[dict[str, Any]], tuple[Any, int]], item: dict[str, Any]) -> tuple[Any, int]:
        """Call ``make``; what it did not time itself with ``timed`` counts as generation."""
        _gpu_reset()
        self.seconds = {}
        started = time.perf_counter()
        result = make(item)
        if not self.seconds:
            _gpu_wait()
            self.seconds = {"generation": time.perf_counter() - started}
        return result

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Seconds of one part: features, generation or decoding. Leave reading and writing of files outside."""
        if part not in ("features", "generation", "decoding"):
            raise ValueError(f"timed({part!r}): the parts are features, generation, decoding")
        _gpu_wait()
        started = time.perf_counter()
        yield
        _gpu_wait()
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - started

    def start(self, item: dict[str, Any]) -> None:
        """Say which item is worked on: a crash or a timeout is then charged to it."""
        payload = json.dumps({"id": item["id"], "k": item["k"], "at": time.time()}).encode("utf8")
        _replace(self.folder / "started.json", payload)

    def write(
        self,
        item: dict[str, Any],
        audio: Any,  # noqa: ANN401 - of numpy, torch or lists
        rate: int,
        notes: Sequence[str] = (),
        **more: object,
    ) -> None:
        """Write one sample (temporary name, then rename) and its row."""
        name = f"{hashlib.sha256(item['id'].encode('utf8')).hexdigest()[:20]}~{item['k']}"
        self.output_dir.mkdir(parents=True, exist_ok=True)
        row = {"sample_rate": int(rate), "seconds": dict(self.seconds), "seed": item["seed"], "notes": list(notes)}
        if isinstance(audio, (str, os.PathLike)):
            name += Path(audio).suffix.lower()
            part = self.output_dir / f".{name}.part"
            shutil.copyfile(audio, part)
            part.replace(self.output_dir / name)
        else:
            name += ".wav"
            channels, samples, payload = _interleaved(audio)
            row.update(channels=channels, n_samples=samples)
            _replace(self.output_dir / name, _wav(payload, channels, int(rate)))
        self.row(item, "ok", path=name, **dict(row, **more))

    def fail(self, item: dict[str, Any], reason: str) -> None:
        """Say that there is no sample for an item, and why."""
        self.row(item, "failed", reason=reason)

    def skip(self, item: dict[str, Any], reason: str) -> None:
        """Say that the model cannot be asked for an item, and why."""
        self.row(item, "skipped", reason=reason)

    def row(self, item: dict[str, Any], status: str, **more: object) -> None:
        """Append one row with a single write."""
        line = dict({"id": item["id"], "k": item["k"], "status": status, "fingerprint": self._stamp}, **more)
        self._counts[status] += 1
        with self.rows_file.open("ab", buffering=0) as handle:
            handle.write((json.dumps(line) + "\n").encode("utf8"))
            os.fsync(handle.fileno())

    def finish(self, fingerprint: dict[str, Any], parameters: int | None = None) -> None:
        """Write ``result.json``; the counters are those of this process."""
        result = {
            "contract_version": VERSION,
            "fingerprint": fingerprint,
            "parameters": parameters,
            "counters": self._counts,
            "exit_code": 0,
        }
        _replace(self.folder / "result.json", json.dumps(result, indent=1).encode("utf8"))

    def _fingerprint(self, weights: Sequence[Path | str], packages: Sequence[str]) -> dict[str, Any]:
        """What the samples came from: weights by hash, package versions, interpreter, GPU."""
        from importlib import metadata

        versions = {}
        for package in packages:
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions[package] = metadata.version(package)
        found = {
            "weights": {Path(path).name: _sha256(Path(path)) for path in weights},
            "revision": self.request["model"].get("revision"),
            **{key: self.request["model"][key] for key in ("steps",) if key in self.request["model"]},
            "packages": versions,
            "python": platform.python_version(),
            "gpu": _gpu_name(),
        }
        self._stamp = hashlib.sha256(json.dumps(found, sort_keys=True).encode("utf8")).hexdigest()[:16]
        return found


def _replace(path: Path, payload: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as handle:
        handle.write(payload)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _interleaved(audio: Any) -> tuple[int, int, bytes]:  # noqa: ANN401 - of numpy, torch or lists
    """Audio of any kind -> channels, samples, little-endian float32 bytes."""
    if hasattr(audio, "detach"):  # a torch tensor
        audio = audio.detach().float().cpu().numpy()
    if hasattr(audio, "astype"):  # a numpy array
        audio = audio.reshape(1, -1) if audio.ndim == 1 else audio
        return int(audio.shape[0]), int(audio.shape[1]), audio.T.astype("<f4").tobytes()
    rows = [audio] if audio and isinstance(audio[0], (int, float)) else audio
    data = array.array("f", (value for frame in zip(*rows) for value in frame))  # noqa: B905 - no strict= in 3.8
    if sys.byteorder == "big":
        data.byteswap()
    return len(rows), len(rows[0]) if rows else 0, data.tobytes()


def _wav(payload: bytes, channels: int, rate: int) -> bytes:
    """Float32 WAV: format tag 3, with the fact chunk it asks for."""
    form = struct.pack("<HHIIHHH", 3, channels, rate, rate * channels * 4, channels * 4, 32, 0)
    count = struct.pack("<I", len(payload) // max(1, 4 * channels))
    chunks = b"".join(_chunk(*pair) for pair in ((b"fmt ", form), (b"fact", count), (b"data", payload)))
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def _chunk(name: bytes, payload: bytes) -> bytes:
    return name + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)


def _cuda() -> Any:  # noqa: ANN401 - torch may be absent
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def _gpu_wait() -> None:
    cuda = _cuda()
    if cuda is not None:
        cuda.synchronize()


def _gpu_reset() -> None:
    cuda = _cuda()
    if cuda is not None:
        cuda.reset_peak_memory_stats()


def _gpu_peak() -> int | None:
    cuda = _cuda()
    return int(cuda.max_memory_allocated()) if cuda is not None else None


def _gpu_name() -> str | None:
    cuda = _cuda()
    return str(cuda.get_device_name()) if cuda is not None else None
