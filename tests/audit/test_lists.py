"""Every list format of the field, and every way a list file can be wrong. Lists are small and hand-made."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from av_bench.audit.cliplist import clip_name, concatenate, filter_labels, without
from av_bench.audit.formats import FORMATS, own_columns
from av_bench.audit.lists import read_list
from av_bench.contracts import UsageError

# format -> (file name, text, rows as (id, start ms, end ms, line))
CASES: dict[str, tuple[str, str, list[tuple[object, ...]]]] = {
    "vggsound": (
        "test.csv",
        'a_b-C_d_e_f_000030.mp4,playing harp\n-123456789_000007.mp4,"pigeon, dove cooing"\n---g-f_I2yQ_000001\n',
        [("a_b-C_d_e_f", 30_000, 40_000, 1), ("---g-f_I2yQ", 1000, 11_000, 3)],
    ),
    "vggsound-ms": (
        "train.txt",
        "--0PQM4-hqg_30000_40000\n0_1_2_3_4_5_0_9500\n",
        [("--0PQM4-hqg", 30_000, 40_000, 1), ("0_1_2_3_4_5", 0, 9500, 2)],
    ),
    "vggsound-s": (
        "seconds.txt",
        "--0PQM4-hqg_97_107\n0_1_2_3_4_5_0_9.5\n",
        [("--0PQM4-hqg", 97_000, 107_000, 1), ("0_1_2_3_4_5", 0, 9500, 2)],
    ),
    "youtube-urls": (
        "urls.txt",
        "https://www.youtube.com/watch?feature=x&v=--0PQM4-hqg&t=30s\nhttps://youtu.be/0_1_2_3_4_5\n"
        "m.youtube.com/shorts/-I_aO12I5Q6?x=1\n",
        [("--0PQM4-hqg", None, None, 1), ("0_1_2_3_4_5", None, None, 2), ("-I_aO12I5Q6", None, None, 3)],
    ),
    "vggsound-official": (
        "vggsound.csv",
        '---g-f_I2yQ,1,"people marching",test\n--0PQM4-hqg,30,"waterfall burbling",train\n',
        [("---g-f_I2yQ", 1000, 11_000, 1), ("--0PQM4-hqg", 30_000, 40_000, 2)],
    ),
    "audioset": (
        "unbalanced.csv",
        '# Segments csv\n# num_ytids=2\n--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n\n'
        '_aBcDeFgHiJ, 5.500, 9.000, "/m/04rlf"\n',
        [("--PJHxphWEs", 30_000, 40_000, 3), ("_aBcDeFgHiJ", 5500, 9000, 5)],
    ),
    "greatest-hits": (
        "hits.txt",
        "2015-02-16-17-08-51_denoised_thumb.mp4\n2015-09-18-04-36-35-994\n",
        [("2015-02-16-17-08-51", None, None, 1), ("2015-09-18-04-36-35-994", None, None, 2)],
    ),
    "avsync15": (
        "avsync.txt",
        "lions roaring/1aDnyPubxdY_118.mp4\n-I_aO12I5Q6_000006_2.5_4.5.mp4\n",
        [("1aDnyPubxdY", 118_000, 128_000, 1), ("-I_aO12I5Q6", 6000, 16_000, 2)],
    ),
    "mmaudio-tsv": (
        "vgg-test.tsv",
        "id\tlabel\n---g-f_I2yQ_000001\tpeople marching\n-_x_y_z_-_w_000010\tpigeon, dove cooing\n",
        [("---g-f_I2yQ", 1000, 11_000, 2), ("-_x_y_z_-_w", 10_000, 20_000, 3)],
    ),
    "v-aura": (
        "v-aura.csv",
        "file,start_sec\n---g-f_I2yQ_1000_11000,5.70\n--U7joUcTCo_0_10000,2.43\n",
        [("---g-f_I2yQ", 1000, 11_000, 2), ("--U7joUcTCo", 0, 10_000, 3)],
    ),
    "vggsound-sparse": (
        "sparse.csv",
        "dataset_name,video_id,start_sec,is_sync\nvggsound_sparse,-7tYmeOmsRg,58,1\nvggsound_sparse,-KqXcm-I2zY,87,0\n",
        [("-7tYmeOmsRg", 58_000, 68_000, 2), ("-KqXcm-I2zY", 87_000, 97_000, 3)],
    ),
    "vggsounder": (
        "vggsounder.csv",
        'video_id,label,modality\n--i-y1v8Hy8_000000,child singing,AV\n--i-y1v8Hy8_000000,"speech, child",A\n',
        [("--i-y1v8Hy8", 0, 10_000, 2), ("--i-y1v8Hy8", 0, 10_000, 3)],
    ),
    "audiocaps": (
        "audiocaps.csv",
        "audiocap_id,youtube_id,start_time,caption\r\n"
        '1,-_1nicOVtvk,130,"A woman talks,\r\nwater pours"\r\n2,UDGBjjwyaqE,20,Clank\r\n',
        [("-_1nicOVtvk", 130_000, 140_000, 2), ("UDGBjjwyaqE", 20_000, 30_000, 4)],
    ),
    "wavcaps-blacklist-audioset": (
        "blacklist.csv",
        "index,id\n0,Yr1nicOVtvkQ.wav\n1,Y-_GBjjwyaqE.wav\n",
        [("r1nicOVtvkQ", None, None, 2), ("-_GBjjwyaqE", None, None, 3)],
    ),
    "wavcaps-blacklist-freesound": (
        "blacklist.csv",
        "index,id\n0,117790\n1,204046\n",
        [("117790", None, None, 2), ("204046", None, None, 3)],
    ),
    "captions-audioset": (
        "ac.csv",
        "file_name,caption_1,caption_2\nY7fmOlUlwoNg.wav,a,b\nY-_fmOlUlwo_.wav,c,d\n",
        [("7fmOlUlwoNg", None, None, 2), ("-_fmOlUlwo_", None, None, 3)],
    ),
    "clotho": (
        "clotho.csv",
        'file_name,caption_1,caption_2\nSanta Motor.wav,a,b\n"clink, clank.wav",c,d\n',
        [("Santa Motor.wav", None, None, 2), ("clink, clank.wav", None, None, 3)],
    ),
    "wavcaps-json-audioset": (
        "blacklist.json",
        '{"AudioSet": ["Yr1nicOVtvkQ.wav", "Y-_GBjjwyaqE.wav"], "FreeSound": ["117790"]}',
        [("r1nicOVtvkQ", None, None, 1), ("-_GBjjwyaqE", None, None, 2)],
    ),
    "wavcaps-json-freesound": (
        "blacklist.json",
        '{"AudioSet": ["Yr1nicOVtvkQ.wav"], "FreeSound": ["117790", "204046"]}',
        [("117790", None, None, 1), ("204046", None, None, 2)],
    ),
    "soundbible": (
        "sb.json",
        '{"num_captions_per_audio": 1, "data": [{"title": "x", "id": "2219"}, {"title": "y", "id": "17"}]}',
        [("2219", None, None, 1), ("17", None, None, 2)],
    ),
    "countix": (
        "countix.json",
        '["CKVO-fWYprA_0028_0038", "-_yBd0ZdY3A_0012_0022"]',
        [("CKVO-fWYprA", 28_000, 38_000, 1), ("-_yBd0ZdY3A", 12_000, 22_000, 2)],
    ),
    "amt": (
        "amt.json",
        '{"2015-02-21-17-09-17_3.0667": ["2015-10-06-20-27-19-220_7.5"], "2015-02-21-17-09-18-4_5.1": []}',
        [("2015-02-21-17-09-17", None, None, 1), ("2015-02-21-17-09-18-4", None, None, 2)],
    ),
    "moviegen": (
        "moviegen.jsonl",
        '{"id": 0, "video_prompt": "a", "audio_prompt": "b"}\n{"id": 31, "video_prompt": "c", "audio_prompt": "d"}\n',
        [("0", None, None, 1), ("31", None, None, 2)],
    ),
}  # fmt: skip
K, L = "abcdefghijk", "abcdefghijl"
CAPTIONS = "audiocap_id,youtube_id,start_time,caption\n"
SNIFF_APART = {"wavcaps-json-freesound": "wavcaps-json-audioset"}  # one file holds both: the name must choose


def _write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def _rows(clips: object) -> list[tuple[object, ...]]:
    table = clips.rows  # type: ignore[attr-defined]
    times = [table[c].to_pylist() if c in table.column_names else [None] * len(table) for c in ("start", "end")]
    return list(zip(table["id"].to_pylist(), *times, table["line"].to_pylist(), strict=True))


def test_every_format_has_a_case() -> None:
    assert set(CASES) == set(FORMATS)


@pytest.mark.parametrize("name", CASES)
def test_rows_of_a_format(name: str, tmp_path: Path) -> None:
    file, text, rows = CASES[name]
    clips = read_list(_write(tmp_path, file, text), name)
    found = _rows(clips)
    if name == "vggsound":  # a row with a 10-character id: the pattern must not borrow a character
        assert [m.line for m in clips.malformed] == [2]
    else:
        assert clips.malformed == ()
    assert found == rows
    assert clips.namespace == FORMATS[name].namespace


@pytest.mark.parametrize("name", CASES)
def test_format_is_recognised_from_the_rows(name: str, tmp_path: Path) -> None:
    file, text, _ = CASES[name]
    assert read_list(_write(tmp_path, file, text)).format == SNIFF_APART.get(name, name)


def test_gzip_bom_and_missing_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "list.txt.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf--0PQM4-hqg_30000_40000\r\n\r\n-10PQM4-hqg_0_10000", mtime=0))
    assert _rows(read_list(path)) == [("--0PQM4-hqg", 30_000, 40_000, 1), ("-10PQM4-hqg", 0, 10_000, 3)]


@pytest.mark.parametrize(
    ("format_name", "file", "text", "line", "words"),
    [
        ("vggsound", "a.csv", f"{K}_000030.mp4,x\nabcdefghij_000030.mp4,x\n{L}_000030.mp4,y\n", 2, "not like"),
        ("vggsound-ms", "a.txt", f"{K}_0_10000\n{L}_10000_10000\nabcdefghijm_0_1\n", 2, "end is not after"),
        ("audioset", "a.csv", f'# c\n{K}, 0.0, 10.0, "/m/1"\n{L}, 0.0, x, "/m/1"\n', 3, "not like"),
        ("audiocaps", "a.csv", f"{CAPTIONS}1,{K},0,x\n2,{L},0,x,y\n", 3, "5 cells"),
        ("audiocaps", "a.csv", f"{CAPTIONS}1,{K},0,x\n2,{L},nan,y\n", 3, "not like"),
        ("wavcaps-blacklist-freesound", "a.csv", "index,id\n0,11\n1,Not found\n2,12\n", 3, "not like"),
        ("countix", "a.json", f'["{K}_0000_0010", "{K}", "{L}_0000_0010"]', 2, "not like"),
        ("moviegen", "a.jsonl", '{"id": 0}\n\n{"id": 1,}\n{"id": 2}\n', 3, "not JSON"),
        ("moviegen", "a.jsonl", '{"id": 0}\n{"id": 1}\n\n\n{"id": "x"}\n', 5, "not like"),
    ],
)  # fmt: skip
def test_malformed_rows_are_listed_with_file_and_line(
    format_name: str, file: str, text: str, line: int, words: str, tmp_path: Path
) -> None:
    path = _write(tmp_path, file, text)
    clips = read_list(path, format_name)
    assert [(m.file, m.line) for m in clips.malformed] == [(str(path), line)]
    assert words in clips.malformed[0].reason
    assert len(clips) >= 1
    assert line not in clips.rows["line"].to_pylist()


@pytest.mark.parametrize("text", ["", "\n \n", "\t\n"])
def test_empty_file_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="empty"):
        read_list(_write(tmp_path, "list.txt", text))


@pytest.mark.parametrize(
    ("format_name", "text"),
    [
        ("vggsound", "abcdefghijk_000030.mp4;playing harp\nabcdefghijl_000030.mp4;x\n"),
        ("audioset", "abcdefghijk\t0.0\t10.0\t/m/09x0r\n"),
        ("audiocaps", "audiocap_id;youtube_id;start_time;caption\n1;abcdefghijk;0;x\n"),
        ("mmaudio-tsv", "id,label\nabcdefghijk_000030,x\n"),
        ("audiocaps", "audiocap_id,youtube_id,start_time,caption\n"),
        (None, "abcdefghijk;30;x\n"),
        (None, "just words\nand more\n"),
    ],
)
def test_wrong_delimiter_or_foreign_file_is_refused(format_name: str | None, text: str, tmp_path: Path) -> None:
    path = _write(tmp_path, "list.csv", text)
    with pytest.raises(UsageError, match="delimiter") as error:
        read_list(path, format_name)
    assert str(path) in str(error.value)


def test_mostly_foreign_rows_are_refused(tmp_path: Path) -> None:
    text = "abcdefghijk_0_10000\n" + "something else\n" * 2
    with pytest.raises(UsageError, match="2 of 3 rows"):
        read_list(_write(tmp_path, "list.txt", text), "vggsound-ms")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.txt", None, "no such list file"),
        ("broken.txt.gz", b"\x1f\x8b\x08\x00broken", "gzip"),
        ("cut.txt.gz", gzip.compress(b"abcdefghijk_0_10000\n" * 50, mtime=0)[:-12], "gzip"),
        ("binary.txt", b"\x00\x01\x02", "binary"),
        ("latin.txt", "abcdefghijk_000030.mp4,caf\xe9\n".encode("latin-1"), "line 1: not UTF-8"),
        ("bad.json", b'{"AudioSet": [', "JSON|known list format"),
    ],
)
def test_unreadable_files_are_refused(name: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_list(tmp_path / name)


def test_a_json_file_of_many_lines_is_no_json_lines_file(tmp_path: Path) -> None:
    path = _write(tmp_path, "list.json", '{"Other": [\n"117790"\n]}\n')
    with pytest.raises(UsageError, match="fits no known list format"):
        read_list(path)


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    """A JSON string may hold separators that Python's splitlines takes for line ends."""
    text = '{"id": 0, "video_prompt": "a\u2028b"}\r\n{"id": 1\n{"id": 2}'
    clips = read_list(_write(tmp_path, "a.jsonl", text))
    assert clips.rows["line"].to_pylist() == [1, 3]
    assert [m.line for m in clips.malformed] == [2]


def test_json_without_the_key_names_the_keys_there_are(tmp_path: Path) -> None:
    path = _write(tmp_path, "list.json", '{"Other": ["Yr1nicOVtvkQ.wav"]}')
    with pytest.raises(UsageError, match="Other"):
        read_list(path, "wavcaps-json-audioset")


def test_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="vggsound-ms"):
        read_list(_write(tmp_path, "a.txt", "abcdefghijk_0_10000\n"), "vgg")


def test_repeated_captions_are_one_clip_and_clips_are_not_ids(tmp_path: Path) -> None:
    text = "audiocap_id,youtube_id,start_time,caption\n1,abcdefghijk,0,a\n2,abcdefghijk,0,b\n3,abcdefghijk,50,c\n"
    clips = read_list(_write(tmp_path, "a.csv", text))
    assert (len(clips), clips.n_clips, clips.n_ids) == (3, 2, 1)


@pytest.mark.parametrize(
    ("clip_id", "start", "name"),
    [("---g-f_I2yQ", 1000, "---g-f_I2yQ_000001"), ("a", 1500, "a_000001.500"), ("0", None, "0"), ("a", 0, "a_000000")],
)
def test_clip_names(clip_id: str, start: int | None, name: str) -> None:
    assert clip_name(clip_id, start) == name


def test_label_filters_are_literal(tmp_path: Path) -> None:
    rows = {"a": "/m/09x0r", "b": "/m/09x0r1", "c": "/m/1,/m/04rlf", "d": "/m/1/m/04rlf", "e": "/m/1"}
    text = "".join(f'abcdefghij{k}, 0.0, 10.0, "{v}"\n' for k, v in rows.items())
    clips = read_list(_write(tmp_path, "as.csv", text), "audioset")

    def ids(**wanted: list[str]) -> str:
        return "".join(i[-1] for i in filter_labels(clips, **wanted).rows["id"].to_pylist())

    assert ids(drop=["/m/09x0r", "/m/04rlf"]) == "bde"
    assert ids(keep=["/m/09x0r", "/m/04rlf"]) == "ac"
    assert ids(drop=["/m/04rlf"], keep=["/m/1"]) == "e"


def test_class_label_filter_takes_names_with_commas(tmp_path: Path) -> None:
    text = 'abcdefghij0_000030.mp4,harp\nabcdefghij1_000030.mp4,"pigeon, dove cooing"\n'
    clips = read_list(_write(tmp_path, "vgg.csv", text), "vggsound")
    assert filter_labels(clips, drop=["pigeon, dove cooing"]).rows["id"].to_pylist() == ["abcdefghij0"]


def test_filter_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no labels"):
        filter_labels(read_list(_write(tmp_path, "a.txt", "abcdefghijk_0_10000\n")), drop=["Speech"])


def test_concatenate_keeps_file_and_line_and_minus_takes_segments(tmp_path: Path) -> None:
    one = read_list(_write(tmp_path, "1.txt", "abcdefghijk_000000\nabcdefghijk_000050\n"))
    two = read_list(_write(tmp_path, "2.txt", "abcdefghijk_50000_60000\nabcdefghijl_0_10000\n"))
    both = concatenate("both", [one, two])
    assert both.where(3) == (str(tmp_path / "2.txt"), 2)
    assert (len(both), both.n_clips, both.n_ids) == (4, 3, 2)
    left = without(both, read_list(_write(tmp_path, "3.txt", "abcdefghijk_000050\n")))
    assert _rows(left) == [("abcdefghijk", 0, 10_000, 1), ("abcdefghijl", 0, 10_000, 2)]


def test_lists_of_different_kinds_do_not_concatenate(tmp_path: Path) -> None:
    one = read_list(_write(tmp_path, "1.txt", "abcdefghijk_000000\n"))
    two = read_list(_write(tmp_path, "2.txt", "2015-02-16-17-08-51\n"))
    with pytest.raises(UsageError, match="different kinds"):
        concatenate("both", [one, two])


def test_windows_far_under_a_second_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, "seconds.txt", "--0PQM4-hqg_97_107\n0_1_2_3_4_5_0_10\n")
    with pytest.raises(UsageError, match="windows last less than 200 ms; the times are probably in seconds"):
        read_list(path, "vggsound-ms")
    assert read_list(path).format == "vggsound-s"


def test_line_ends_of_old_macs_do_not_hide_rows(tmp_path: Path) -> None:
    path = _write(tmp_path, "mac.txt", f"{K}_0_10000\r{L}_0_10000\rrubbish\r")
    clips = read_list(path)
    assert _rows(clips) == [(K, 0, 10_000, 1), (L, 0, 10_000, 2)]
    assert [m.line for m in clips.malformed] == [3]


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_columns_of_any_table(delimiter: str, tmp_path: Path) -> None:
    rows = [["n", "url", "from", "to"], ["1", f"https://youtu.be/{K}?t=1", "3", "13"], ["2", f"Y{L}.wav", "4.5", "9"]]
    path = _write(tmp_path, "own.csv", "\n".join(delimiter.join(row) for row in rows) + "\n")
    clips = read_list(path, columns=own_columns("id=url,start=from,end=to"))
    assert _rows(clips) == [(K, 3000, 13_000, 2), (L, 4500, 9000, 3)]
    assert clips.namespace == "youtube"
    ids = read_list(path, columns=own_columns("id=n"))
    assert (ids.namespace, ids.rows["id"].to_pylist(), ids.windows) == ("own ids", ["1", "2"], False)
    with pytest.raises(UsageError, match="--columns asks for ytid; the header is"):
        read_list(path, columns=own_columns("id=ytid"))


@pytest.mark.parametrize("text", ["id", "id=", "name=x", "start=a", "id=a,end=b"])
def test_columns_that_say_too_little_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--columns"):
        own_columns(text)
