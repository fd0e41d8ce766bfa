"""Every list format gives the id, text, label and recording that its rows state."""

from __future__ import annotations

from pathlib import Path

import pytest

import protocols
from av_bench.contracts import Clip, UsageError
from protocols.definitions import SetRequest
from protocols.readers.read import read_clips

LISTS = {
    "vggsound": ("a.csv", 'abcdefghijk_000030.mp4,"dog, barking"\nzbcdefghijk_000001.mp4,rain\n'),
    "audiocaps": (
        "a.csv",
        "audiocap_id,youtube_id,start_time,caption\n1,abcdefghijk,30,A dog barks\n2,abcdefghijk,30,Barking\n"
        "3,zbcdefghijk,1,Rain falls\n",
    ),
    "audiocaps-957": ("a.csv", "file_name,caption_1,caption_2\nYabcdefghijk.wav,A dog barks,Barking\n"),
    "moviegen": ("a.jsonl", '{"id": 7, "audio_prompt": "waves", "video_prompt": "the sea"}\n'),
    "greatest_hits": ("a.txt", "2015-02-16-17-08-51_denoised_thumb.mp4\n"),
}
EXPECTED = {
    "vggsound": [
        ("abcdefghijk_000030", "dog, barking", "dog, barking", "abcdefghijk"),
        ("zbcdefghijk_000001", "rain", "rain", "zbcdefghijk"),
    ],
    "audiocaps": [
        ("abcdefghijk_000030", "A dog barks", None, "abcdefghijk"),
        ("zbcdefghijk_000001", "Rain falls", None, "zbcdefghijk"),
    ],
    "audiocaps-957": [("Yabcdefghijk", "A dog barks", None, "abcdefghijk")],
    "moviegen": [("7", "waves", None, None)],
    "greatest_hits": [("2015-02-16-17-08-51", None, None, None)],
}


@pytest.mark.parametrize("name", sorted(LISTS))
def test_rows_become_clips(name: str, tmp_path: Path) -> None:
    file, text = LISTS[name]
    path = tmp_path / file
    path.write_text(text)
    (tmp_path / "media").mkdir()
    clips = read_clips(protocols.load_set(name), SetRequest(data=tmp_path / "media", lists=path)).clips
    found: list[Clip] = list(clips)
    assert [(c.id, c.text, c.label, c.group) for c in found] == EXPECTED[name]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("vggsound", "abcdefghijk_30.mp4,rain\n", "ID_START and a label are expected"),
        ("vggsound", "abcdefghijk_000030.mp4\n", "ID_START and a label are expected"),
        ("audiocaps", "youtube_id,start_time,caption\nabcdefghijk,1.5,rain\n", "start_time must be whole seconds"),
        ("audiocaps", "youtube_id,start_time,caption\nabcdefghijk,-1,rain\n", "start_time must be whole seconds"),
        ("audiocaps", "youtube_id,start_time,text\nabcdefghijk,1,rain\n", "caption"),
        ("audiocaps-957", "file_name,text\na.wav,rain\n", "caption_1"),
        ("moviegen", '{"id": 7}\n', "audio_prompt"),
    ],
)
def test_rows_of_another_form_are_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / LISTS[name][0]
    path.write_text(text)
    (tmp_path / "media").mkdir()
    with pytest.raises(UsageError, match=message):
        read_clips(protocols.load_set(name), SetRequest(data=tmp_path / "media", lists=path))
