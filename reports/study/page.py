"""The study as a page: a folder to host or one file to send, and the key that says which sample is whose."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from av_bench.contracts import UsageError
from reports.site.pages import script_json
from reports.study.design import Design, Rules, Sample, Words

HERE = Path(__file__).parent
KIND = "study-key"
Write = Callable[[Sample, Path], Path | None]


def write_study(
    made: Design, words: Words, rules: Rules, out: Path, write: Write, *, post: str | None = None, single: bool = False
) -> dict[str, object]:
    """Write ``out``/page (for participants) and ``out``/key.json (for the author); returns the key.

    ``write`` puts the media of a sample beside a path without suffix. UsageError when ``out`` is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not empty; a study is never written over, choose another --out")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        page = partial / "page"
        (page / "media").mkdir(parents=True)
        files = {s.token: _media(s, page, write, single) for group in made.samples for s in group}
        key = _key(made, words, rules)
        study = {
            "study": key["study"],
            "seed": rules.seed,
            "per_person": rules.per_person or len(made.samples),
            "checks": rules.checks,
            "words": asdict(words),
            "groups": [
                [{"token": s.token, "file": files[s.token]} for s in sorted(group, key=lambda s: s.token)]
                for group in made.samples
            ],
            "post": post,
            "matched": rules.match,
        }
        (page / "index.html").write_text(_html(words, study), encoding="utf8")
        if single:
            shutil.rmtree(page / "media")
        (partial / "key.json").write_text(json.dumps(key, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return key


def _media(sample: Sample, page: Path, write: Write, single: bool) -> str:
    path = write(sample, page / "media" / sample.token)
    if path is None:
        raise UsageError(f"study: {sample.clip} of {sample.method} cannot be read any more")
    if not single:
        return f"media/{path.name}"
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def _key(made: Design, words: Words, rules: Rules) -> dict[str, object]:
    """What the author keeps: which token is which sample, by which rules, with which gain."""
    content = {
        "rules": asdict(rules),
        "left_out": made.left_out,
        "questions": [q.id for q in words.questions],
        "steps": len(words.scale),
        "samples": [asdict(s) for group in made.samples for s in group],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    return {"kind": KIND, "study": digest, **content}


def _html(words: Words, study: dict[str, object]) -> str:
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True)
    static = HERE / "static"
    return environment.get_template("study.html.j2").render(
        title=words.title,
        style=(static / "study.css").read_text(encoding="utf8"),
        script=(static / "study.js").read_text(encoding="utf8"),
        study=script_json(study),
    )
