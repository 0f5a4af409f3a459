"""One page to look at: what was asked, what came, whether it is any good, and the rows themselves.

``report`` reads and decides, ``sections`` and ``charts`` draw, ``page`` writes one file of HTML. Everything is read in
flat memory, and a row or an answer is text everywhere on the page, whatever it holds.
"""

from batchllm.report.page import check_page, write_page
from batchllm.report.report import Report, make_report, report_on

__all__ = ["Report", "check_page", "make_report", "report_on", "write_page"]
