"""Text from outside: nothing of it is obeyed by a terminal, breaks a file, or ends a run."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile

import av_bench
from av_bench.contracts import Clip, UsageError, printable
from tests.command import av_bench as command
from tests.conftest import ROOT
from tests.media_files import tone, write_video
from tests.runs import make_run

HOSTILE = "red\x1b[31m\x1b]0;title\x07 \x9b2J\u202etxet\r\nline\n\n\ttab\x00\ud800\uffff\u2028end"
SHOWN = r"red\x1b[31m\x1b]0;title\x07 \x9b2J\u202etxet line tab\x00\ud800\uffff end"


def test_printable_text_is_one_line_that_any_file_takes() -> None:
    assert printable(HOSTILE) == SHOWN
    assert printable("x\udcfe.flac") == r"x\xfe.flac"  # a byte of a file name that is not UTF-8
    for plain in ("a dog barks", "Ein Hund bellt – laut", "犬が吠える", "👩‍🚀", "nbsp\u00a0", r"back\slash", ""):
        assert printable(plain) == plain
    assert printable("\n a dog\n") == " a dog"


def test_texts_of_a_clip_are_printable_wherever_it_comes_from() -> None:
    clip = Clip("a", text=HOSTILE, label=HOSTILE, group=HOSTILE)
    assert (clip.text, clip.label, clip.group) == (SHOWN, SHOWN, SHOWN)


@pytest.fixture
def hostile_run(tmp_path: Path) -> Path:
    """A run folder as a stranger may have written it: every text hostile, JSON escapes and all."""
    run = make_run(tmp_path / "run", model=HOSTILE, drop=("F1",), excluded=1)
    scores = json.loads((run / "scores.json").read_text())
    scores["absent"] = {"F1": HOSTILE}
    scores["warnings"] = [HOSTILE]
    scores["set"]["name"] = scores["set"]["name"] + HOSTILE
    scores["counts"]["excluded"] = {HOSTILE: 1}
    (run / "scores.json").write_text(json.dumps(scores))
    return run


def only_plain(text: str) -> None:
    """Nothing but printable characters and line ends, and it can be encoded."""
    text.encode()
    assert all(c == "\n" or printable(c) == c for c in text), sorted({c for c in text if printable(c) != c})


@pytest.mark.parametrize("form", ["markdown", "latex", "csv", "html"])
def test_a_hostile_run_makes_a_plain_table(hostile_run: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("table", [hostile_run, "--format", form]) == 0
    text = capsys.readouterr().out
    only_plain(text)
    if form == "csv":
        rows = list(csv.reader(io.StringIO(text), strict=True))
        assert len({len(row) for row in rows if row and not row[0].startswith("#")}) == 1


def test_a_hostile_run_makes_a_valid_verdict(
    hostile_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_run(tmp_path / "base")
    (tmp_path / "rules.yaml").write_text('metrics: {"x\\e[31m\\n": {limit: 1.0}}')
    for rules in ([], ["--rules", tmp_path / "rules.yaml"]):
        files = [tmp_path / name for name in ("gate.xml", "gate.md", "gate.json")]
        options = [*rules, "--junit", files[0], "--summary", files[1], "--json", files[2]]
        assert command("gate", [hostile_run, "--against", base, *options]) == 2  # another set
        assert command("gate", [make_run(tmp_path / "worse", shift=0.2), "--against", base, *options]) == 1
        shown = capsys.readouterr()
        only_plain(shown.out + shown.err)
        for file in files[1:]:
            only_plain(file.read_text())
        assert ElementTree.parse(files[0]).getroot().tag == "testsuite"


def test_errors_are_printed_plain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("table", [tmp_path / "no\x1b[31m\r"]) == 2
    only_plain(capsys.readouterr().err)
    assert command("run", ["--set", "clips\x1b[31m", "--model", "x"]) == 2
    only_plain(capsys.readouterr().err)


def test_names_of_protocols_and_columns_are_printable(tmp_path: Path) -> None:
    from protocols.definitions import load_protocol

    text = 'name: "{0}"\nversion: 1\nseconds: 8.0\nflavour: strict\nmetrics: {{"{1}": {{kind: kl}}}}\n'
    for name, metric in (("a\\eb", "KL"), ("../a", "KL"), ("a", "K\\nL"), ("a", "K\\ud800L")):
        (tmp_path / "own.yaml").write_text(text.format(name, metric))
        with pytest.raises(UsageError):
            load_protocol(str(tmp_path / "own.yaml"))


def _odd_name(folder: Path, name: bytes) -> Path:
    path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
    try:
        path.write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    return path


def test_odd_names_and_characters_do_not_end_a_run(tmp_path: Path) -> None:
    """A stray file that is not UTF-8, a caption with half a surrogate, a Latin-1 terminal: all at once."""
    data, samples, out = (tmp_path / name for name in ("data", "samples", "run"))
    for folder in (data, samples):
        folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        write_video(data / f"{name}.mp4", seconds=8, size=48, audio=tone(8.0))
        soundfile.write(samples / f"{name}.flac", 0.1 * rng.standard_normal(8 * 16_000), 16_000)
    _odd_name(samples, b"x\xfe.flac").write_bytes((samples / "a.flac").read_bytes())
    _odd_name(data, b"y\xfe.mp4").write_bytes(b"x")
    rows = [{"id": "a", "text": HOSTILE}, {"id": "b", "text": "ok"}]
    (data / "clips.jsonl").write_text("\n".join(map(json.dumps, rows)))
    script = (
        "import sys; from av_bench.cli import main; "
        f"sys.argv = ['av-bench', 'run', '--set', 'clips', '--data', {str(data)!r}, '--samples', {str(samples)!r}, "
        f"'--out', {str(out)!r}, '--metrics', 'KL-nano', '--workers', '1', '--label', 'Größe → \\x1b[31m']; main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "latin-1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode("latin-1")
    shown = done.stdout.decode("latin-1")
    assert r"Größe \u2192 \\x1b[31m" in shown
    assert r"1 video of" in shown
    assert r"e.g. y\\xfe.mp4" in shown
    ledger = (out / "ledger.jsonl").read_text()
    assert '"extra-sample"' in ledger
    assert av_bench.table([out])
