"""Acceptance: the first run on an installation that has the released files.

The report carries what every network gave here: files with their hashes, outputs on three rendered clips, and one
sample of every MMAudio variant. Outputs are compared with reports of others who ran the same files; where there is no
such report the item says so, and this one can be sent in. A file that is absent is reported as absent.
"""

from av_bench.accept.known import Known, load_known
from av_bench.accept.report import Item, Report
from av_bench.accept.text import markdown
from av_bench.accept.trial import accept, with_steps

__all__ = ["Item", "Known", "Report", "accept", "load_known", "markdown", "with_steps"]
