"""How each list format of the field writes a clip: where the id stands, in which unit the start is, what the header is.

YouTube ids have exactly 11 characters out of ``[A-Za-z0-9_-]``: they may hold ``_`` and begin with ``-``, so a name is
cut after its first 11 characters and never split at ``_``. A clip without a stated end lasts 10 s, the clip length of
AudioSet, VGGSound and AudioCaps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from av_bench.contracts import UsageError

Kind = Literal["lines", "table", "json"]
DEFAULT_WINDOW_MS = 10_000
_YOUTUBE = r"(?P<id>[A-Za-z0-9_-]{11})"
# what stands before the id in an address of YouTube
_ADDRESS = (
    r"(?:https?://)?(?:[a-z]+\.)?"
    r"(?:youtube(?:-nocookie)?\.com/(?:watch\?(?:[^,\s]*&)?v=|shorts/|embed/|live/|v/)|youtu\.be/)"
)
_SECONDS = r"(?P<start>[0-9]+(?:\.[0-9]+)?)"
_HITS = r"(?P<id>[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9]{2}-[0-9]{2}-[0-9]{2}(?:-[0-9]+)?)"


@dataclass(frozen=True)
class Format:
    """One way of writing a list.

    ``pattern`` is matched against a whole record: a line, the joined ``columns`` of a table row (comma between), or
    an entry of a JSON file. Its groups are ``id`` and, where the format has them, ``start``, ``end`` and ``label``.
    ``unit_ms`` is the length of one unit of start and end in ms. ``namespace`` names the space the ids live in: ids
    of two namespaces are never compared.
    """

    name: str
    namespace: str
    kind: Kind
    pattern: str
    example: str
    unit_ms: int = 1000
    delimiter: str = ","
    columns: tuple[str, ...] = ()
    key: str | None = None
    label_kind: Literal["none", "class", "mids"] = "none"

    @property
    def groups(self) -> frozenset[str]:
        """Names of the groups the pattern captures."""
        return frozenset(re.compile(self.pattern).groupindex)

    @property
    def windows(self) -> bool:
        """True when every row has a start time, so that windows can be compared."""
        return "start" in self.groups


_ALL = (
    Format(
        "vggsound",
        "youtube",
        "lines",
        rf'{_YOUTUBE}_(?P<start>[0-9]{{1,6}})(?:\.mp4)?(?:,(?P<label>"[^"]+"|[^",]*))?',
        "glLQrEijrKg_000300.mp4,playing hammond organ",
        label_kind="class",
    ),
    Format(
        "vggsound-ms",
        "youtube",
        "lines",
        rf"{_YOUTUBE}_(?P<start>[0-9]+)_(?P<end>[0-9]+)",
        "--0PQM4-hqg_30000_40000",
        unit_ms=1,
    ),
    Format(
        "vggsound-s",
        "youtube",
        "lines",
        rf"{_YOUTUBE}_(?P<start>[0-9]+(?:\.[0-9]+)?)_(?P<end>[0-9]+(?:\.[0-9]+)?)",
        "--0PQM4-hqg_30_40",
    ),
    Format(
        "youtube-urls",
        "youtube",
        "lines",
        rf"{_ADDRESS}{_YOUTUBE}(?:[?&#][^,\s]*)?",
        "https://www.youtube.com/watch?v=--0PQM4-hqg",
    ),
    Format(
        "vggsound-official",
        "youtube",
        "lines",
        rf'{_YOUTUBE},(?P<start>[0-9]+),(?P<label>"[^"]+"|[^",]+),(?:train|test)',
        '---g-f_I2yQ,1,"people marching",test',
        label_kind="class",
    ),
    Format(
        "audioset",
        "youtube",
        "lines",
        rf'{_YOUTUBE}, ?{_SECONDS}, ?(?P<end>[0-9]+(?:\.[0-9]+)?), ?"(?P<label>[^"]+)"',
        '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"',
        label_kind="mids",
    ),
    Format(
        "greatest-hits",
        "greatest-hits",
        "lines",
        rf"{_HITS}(?:_denoised)?(?:_thumb)?(?:\.(?:mp4|wav))?",
        "2015-02-16-17-08-51_denoised_thumb.mp4",
    ),
    Format(
        "mmaudio-tsv",
        "youtube",
        "table",
        rf"{_YOUTUBE}_(?P<start>[0-9]{{6}}),(?P<label>.*)",
        "---g-f_I2yQ_000001<TAB>people marching",
        delimiter="\t",
        columns=("id", "label"),
        label_kind="class",
    ),
    Format(
        "v-aura",
        "youtube",
        "table",
        rf"{_YOUTUBE}_(?P<start>[0-9]+)_(?P<end>[0-9]+),[0-9]+(?:\.[0-9]+)?",
        "---g-f_I2yQ_1000_11000,5.70",
        unit_ms=1,
        columns=("file", "start_sec"),
    ),
    Format(
        "vggsound-sparse",
        "youtube",
        "table",
        rf"{_YOUTUBE},{_SECONDS}",
        "vggsound_sparse,-7tYmeOmsRg,58,0,1,1",
        columns=("video_id", "start_sec"),
    ),
    Format(
        "vggsounder",
        "youtube",
        "table",
        rf"{_YOUTUBE}_(?P<start>[0-9]{{6}}),(?P<label>.*)",
        "--i-y1v8Hy8_000000,child singing,AV,False,False,True",
        columns=("video_id", "label"),
        label_kind="class",
    ),
    Format(
        "audiocaps",
        "youtube",
        "table",
        rf"{_YOUTUBE},{_SECONDS}",
        "91139,r1nicOVtvkQ,130,A woman talks nearby as water pours",
        columns=("youtube_id", "start_time"),
    ),
    Format(
        "wavcaps-blacklist-audioset", "youtube", "table", rf"Y{_YOUTUBE}\.wav", "0,Yr1nicOVtvkQ.wav", columns=("id",)
    ),
    Format("wavcaps-blacklist-freesound", "freesound", "table", r"(?P<id>[0-9]+)", "0,117790", columns=("id",)),
    Format(
        "captions-audioset",
        "youtube",
        "table",
        rf"Y{_YOUTUBE}\.wav",
        "Y7fmOlUlwoNg.wav,five captions",
        columns=("file_name",),
    ),
    Format("clotho", "clotho", "table", r"(?P<id>.+\.wav)", "Santa Motor.wav,five captions", columns=("file_name",)),
    Format(
        "wavcaps-json-audioset",
        "youtube",
        "json",
        rf"Y{_YOUTUBE}\.wav",
        '{"AudioSet": ["Yr1nicOVtvkQ.wav"]}',
        key="AudioSet",
    ),
    Format(
        "wavcaps-json-freesound", "freesound", "json", r"(?P<id>[0-9]+)", '{"FreeSound": ["117790"]}', key="FreeSound"
    ),
    Format("soundbible", "soundbible", "json", r"(?P<id>[0-9]+)", '{"data": [{"id": "2219"}]}', key="data"),
    Format("countix", "youtube", "json", rf"{_YOUTUBE}_(?P<start>[0-9]+)_(?P<end>[0-9]+)", '["CKVO-fWYprA_0028_0038"]'),
    Format("amt", "greatest-hits", "json", rf"{_HITS}_[0-9.]+", '{"2015-02-21-17-09-17_3.0667": []}', key="*"),
    Format("moviegen", "moviegen", "json", r"(?P<id>[0-9]+)", '{"id": 0, "video_prompt": "..."}', key="id"),
    # last: its pattern also fits rows of other formats
    Format(
        "avsync15",
        "youtube",
        "lines",
        rf"(?:[^,]*/)?{_YOUTUBE}_(?P<start>[0-9]{{1,6}})(?:_[0-9.]*[0-9])*(?:\.(?:mp4|wav))?(?:,.*)?",
        "lions roaring/1aDnyPubxdY_118.mp4",
    ),
)
_OWN_COLUMNS = ("id", "start", "end", "label")


def own_columns(text: str) -> dict[str, str]:
    """``id=ytid,start=start_s,end=end_s`` as a mapping of ours to theirs. UsageError names what is off."""
    found = {}
    for part in text.split(","):
        ours, equals, theirs = part.partition("=")
        if not equals or not theirs.strip() or ours.strip() not in _OWN_COLUMNS:
            raise UsageError(
                f"--columns {part!r}: write id=COLUMN, and if the list has them start=, end= (s) and label=COLUMN, "
                "separated by commas"
            )
        found[ours.strip()] = theirs.strip()
    if "id" not in found or ("end" in found and "start" not in found):
        raise UsageError(f"--columns {text!r}: id=COLUMN is needed, and start=COLUMN where there is an end")
    return found


def of_columns(columns: dict[str, str], delimiter: str, youtube: bool) -> Format:
    """The format of a table with these columns; ``youtube``: its ids are those of YouTube, bare or as addresses."""
    parts = {"id": rf"(?:{_ADDRESS}|Y)?{_YOUTUBE}(?:[?&#][^,\s]*|\.[a-z0-9]{{2,4}})?" if youtube else r"(?P<id>.+)"}
    parts |= {"start": _SECONDS, "end": r"(?P<end>[0-9]+(?:\.[0-9]+)?)", "label": r"(?P<label>.*)"}
    order = [name for name in _OWN_COLUMNS if name in columns]
    kind: Literal["none", "class"] = "class" if "label" in columns else "none"
    return Format(
        "own columns",
        "youtube" if youtube else "own ids",
        "table",
        ",".join(parts[name] for name in order),
        ",".join(f"<{columns[name]}>" for name in order),
        delimiter=delimiter,
        columns=tuple(columns[name] for name in order),
        label_kind=kind,
    )


FORMATS: dict[str, Format] = {f.name: f for f in _ALL}


def get(name: str) -> Format:
    """The format called ``name``; UsageError names the available ones."""
    if name not in FORMATS:
        raise UsageError(f"no list format is called {name!r}; available: {', '.join(FORMATS)}")
    return FORMATS[name]
