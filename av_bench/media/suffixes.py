"""Names under which recordings are stored: the one list of them."""

from __future__ import annotations

AUDIO_SUFFIXES = frozenset(
    {
        ".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".mp3", ".mp2", ".ogg", ".oga", ".opus", ".spx", ".m4a",
        ".m4b", ".mka", ".weba", ".aac", ".ac3", ".eac3", ".dts", ".wma", ".aif", ".aiff", ".aifc", ".au", ".snd",
        ".caf", ".amr", ".voc", ".wv", ".ape", ".tta",
    }
)  # fmt: skip
VIDEO_SUFFIXES = frozenset(
    {
        ".mp4", ".m4v", ".mkv", ".webm", ".mov", ".qt", ".avi", ".divx", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg",
        ".m2v", ".vob", ".flv", ".f4v", ".3gp", ".3g2", ".wmv", ".asf", ".ogv", ".ogm", ".mxf", ".rm", ".rmvb",
        ".nut", ".dv",
    }
)  # fmt: skip
