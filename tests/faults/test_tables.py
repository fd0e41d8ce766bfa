"""Tables of sets, lists, mappings and audits: no row is lost or altered in silence."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from av_bench.audit.lists import read_list
from av_bench.audit.overlaps import audit
from av_bench.contracts import ClipSet, UsageError
from model_zoo.baselines.mapping import _by_table
from model_zoo.external.extras import read_extras
from protocols.definitions import SetRequest, load_set
from protocols.readers.read import read_clips

ROWS = 12
OPEN = '"stop, he shouts'


def folder_set(folder: Path, name: str, text: str, **more: object) -> ClipSet:
    """The set ``clips`` on a folder with a table of that name and content."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return read_clips(load_set("clips"), SetRequest(data=folder, **more))  # type: ignore[arg-type]


def table(separator: str, *, sixth: str = OPEN, ninth: str = "sound") -> str:
    """Twelve rows; ``sixth`` and ``ninth`` are the texts of two of them as written."""
    texts = {6: sixth, 9: ninth}
    rows = [[f"c{i:02d}", f"c{i:02d}.mp4", texts.get(i, f"sound {i}")] for i in range(1, ROWS + 1)]
    return "\n".join(separator.join(row) for row in [["id", "file", "text"], *rows]) + "\n"


def test_an_open_quotation_mark_is_a_letter_in_tsv(tmp_path: Path) -> None:
    clips = folder_set(tmp_path, "clips.tsv", table("\t"))
    assert len(clips.clips) == ROWS
    assert clips.clips[5].text == OPEN


@pytest.mark.parametrize(
    ("sixth", "ninth", "said"),
    [
        ('"stop he shouts', "sound", r"clips.csv, line 7: a quotation mark opens a cell and is never closed"),
        ('"stop he shouts', 'he said stop"', r"clips.csv, line 7: .* ends on line 10, and line 8 looks like a row"),
        ('"stop" he shouts', "sound", r"clips.csv, line 7: text follows a closing quotation mark"),
    ],
)
def test_an_open_quotation_mark_in_csv_is_an_error_with_its_line(
    tmp_path: Path, sixth: str, ninth: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        folder_set(tmp_path, "clips.csv", table(",", sixth=sixth, ninth=ninth))


def test_what_quotation_marks_are_for_is_read(tmp_path: Path) -> None:
    clips = folder_set(tmp_path, "clips.csv", table(",", sixth='"stop, he ""shouts"""', ninth='"two\r\nlines"'))
    assert [clips.clips[i].text for i in (5, 8)] == ['stop, he "shouts"', "two lines"]


def test_an_open_quotation_mark_before_a_long_rest_is_no_traceback(tmp_path: Path) -> None:
    long = table(",", sixth='"stop') + "".join(f"d{i},d{i}.mp4,{'x' * 100}\n" for i in range(2000))
    with pytest.raises(UsageError, match=r"line 7: .*131,072 characters; is a quotation mark not closed"):
        folder_set(tmp_path, "clips.csv", long)


@pytest.mark.parametrize("name", ["vggsound", "audiocaps"])
def test_lists_of_sets_do_not_swallow_rows(tmp_path: Path, name: str) -> None:
    rows = {
        "vggsound": [f"-12345678{i:02d}_000030.mp4,a sound" for i in range(ROWS)],
        "audiocaps": [f"{i},-12345678{i:02d},30,a sound" for i in range(ROWS)],
    }[name]
    rows[5] = rows[5].replace("a sound", '"a sound')
    head = ["audiocap_id,youtube_id,start_time,caption"] if name == "audiocaps" else []
    path = tmp_path / "list.csv"
    path.write_text("\n".join([*head, *rows]) + "\n")
    with pytest.raises(UsageError, match=rf"list.csv, line {6 + len(head)}: a quotation mark"):
        read_clips(load_set(name), SetRequest(data=tmp_path, lists=path))


def test_a_contaminated_list_is_never_clean_because_of_a_quotation_mark(tmp_path: Path) -> None:
    test = [f"{i},-12345678{i:02d},30,a sound" for i in range(ROWS)]
    train = [row.replace("a sound", '"a sound') if row.startswith("0,") else row for row in test]
    head = "audiocap_id,youtube_id,start_time,caption\n"
    for name, rows in (("test.csv", test), ("train.csv", train)):
        (tmp_path / name).write_text(head + "\n".join(rows) + "\n")
    assert len(audit(read_list(tmp_path / "test.csv"), [read_list(tmp_path / "test.csv")], "id").union[0]) == ROWS
    for layout in (None, "audiocaps"):
        with pytest.raises(UsageError, match=r"train.csv, line 2: a quotation mark"):
            read_list(tmp_path / "train.csv", layout)


def test_mapping_and_extras_are_read_by_the_same_reader(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "map.tsv").write_text('file\tid\tnote\na.wav\tc01\t"open\n')
    assert list(_by_table(tmp_path, tmp_path / "map.tsv")) == [("c01", 0)]
    (tmp_path / "map.tsv").write_text("file\tid\tid\na.wav\tc01\tc02\n")
    with pytest.raises(UsageError, match="duplicate column 'id'"):
        _by_table(tmp_path, tmp_path / "map.tsv")
    (tmp_path / "map.tsv").write_text("file\tid\n../a.wav\tc01\n")
    with pytest.raises(UsageError, match=r"line 2: file '\.\./a\.wav' must lie inside"):
        _by_table(tmp_path, tmp_path / "map.tsv")
    (tmp_path / "extras.jsonl").write_text('{"id": "a"}\n{"id": NaN}\n')
    with pytest.raises(UsageError, match="line 2: not JSON: NaN is not a number"):
        read_extras(tmp_path / "extras.jsonl", (), "x")


def test_videos_that_the_table_does_not_name_are_counted_aloud(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(b"x")
    clips = folder_set(tmp_path, "clips.csv", "id,file\na,a.mp4\n")
    (note,) = clips.notes
    assert note.startswith("2 videos of ")
    assert note.endswith("not named by clips.csv, e.g. b.mp4: not scored")
    assert folder_set(tmp_path, "clips.csv", "id,file\na,a.mp4\nb,b.mp4\nc,c.mp4\n").notes == ()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"id": 1e5}, "id must be a text or a whole number, found 100000.0"),
        ({"id": True}, "id must be a text or a whole number, found True"),
        ({"id": ["a"]}, "id must be a text or a whole number"),
        ({"id": "a", "text": ["a dog barks", "a puppy"]}, "text must be a text, found"),
        ({"id": "a", "label": 3}, "label must be a text, found 3"),
        ({"id": "a", "file": 3}, "file must be a text, found 3"),
        ({"id": "a", "onsets": [True]}, "onsets must be a list of seconds"),
        ({"id": "a", "onsets": [[1.0]]}, "onsets must be a list of seconds"),
        ({"id": "a", "onsets": 1.5}, "onsets must be a list of seconds"),
        ({"id": float("nan")}, "not JSON: NaN is not a number"),
        (["a"], "an object per line is expected"),
    ],
)
def test_json_lines_of_a_wrong_type_name_their_line(tmp_path: Path, line: object, said: str) -> None:
    with pytest.raises(UsageError, match=f"clips.jsonl, line 2: {said}"):
        folder_set(tmp_path, "clips.jsonl", json.dumps({"id": "ok"}) + "\n" + json.dumps(line) + "\n")


def test_the_suffix_of_a_table_may_be_large(tmp_path: Path) -> None:
    (tmp_path / "own.JSONL").write_text('{"id": "a"}\n')
    (tmp_path / "own.TSV").write_text('id\ttext\na\t"open\n')
    for name in ("own.JSONL", "own.TSV"):
        clips = read_clips(load_set("clips"), SetRequest(data=tmp_path, table=tmp_path / name))
        assert [clip.id for clip in clips.clips] == ["a"]


def test_whole_numbers_are_ids(tmp_path: Path) -> None:
    clips = folder_set(tmp_path, "clips.jsonl", '{"id": 0, "file": "c01.mp4"}\n{"id": 12}\n')
    assert [clip.id for clip in clips.clips] == ["0", "12"]


@pytest.mark.parametrize("name", ["clips.csv", "clips.tsv", "clips.jsonl"])
def test_a_name_that_stands_twice_is_refused(tmp_path: Path, name: str) -> None:
    texts = {"clips.csv": "id,text,text\na,b,c\n", "clips.tsv": "id\ttext\ttext\na\tb\tc\n"}
    with pytest.raises(UsageError, match=r"line 1: (duplicate column|not JSON: duplicate key) 'text'"):
        folder_set(tmp_path, name, texts.get(name, '{"id": "a", "text": "b", "text": "c"}\n'))


@pytest.mark.parametrize("suffix", ["txt", "txt.gz"])
def test_a_list_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """A gzip file of a few kilobytes may hold gigabytes."""
    monkeypatch.setattr("protocols.lists.sources.LARGEST_TABLE", 1000)
    path, content = tmp_path / f"list.{suffix}", b"-1234567890_000030\n" * 1000
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    with pytest.raises(UsageError, match="more than 1,000 bytes unpacked"):
        read_list(path)


def test_the_shared_cases(shared: Path, tmp_path: Path) -> None:
    """The two tables that ``cases/make.sh`` makes, written as it writes them."""
    assert (shared / "cases/make.sh").is_file()
    rows = [f"c{i:02d}\tc{i:02d}.mp4\tsound number {i}" for i in range(1, 13)]
    rows[5] = 'c06\tc06.mp4\t"stop, he shouts'
    assert len(folder_set(tmp_path / "a", "clips.tsv", "id\tfile\ttext\n" + "\n".join(rows) + "\n").clips) == 12
    odd = ({"id": 0, "file": "c01.mp4"}, {"id": 1e5, "file": "c02.mp4"}, {"id": "c03", "text": ["a dog", "a puppy"]})
    with pytest.raises(UsageError, match="line 2"):
        folder_set(tmp_path / "b", "clips.jsonl", "\n".join(map(json.dumps, odd)))
