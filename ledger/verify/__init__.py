"""Proving the books: everything recomputed from the journal, and the first bad entry named.

``verify`` looks at everything, from the first entry on; ``verify_since`` at what came after the last clean
verification, and what that touched. Both read all books as of one moment, so they run while the service books on.
"""

from ledger.verify.books import verify
from ledger.verify.checkpoints import Checkpoint, read_checkpoints, record_checkpoints
from ledger.verify.report import BookReport, Known, Problem, Progress
from ledger.verify.since import verify_since

__all__ = [
    "BookReport",
    "Checkpoint",
    "Known",
    "Problem",
    "Progress",
    "read_checkpoints",
    "record_checkpoints",
    "verify",
    "verify_since",
]
