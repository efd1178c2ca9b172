"""What to say when tables that `db` keeps on disk cannot be written there."""

from __future__ import annotations

import errno

from ml.errors import BadInput


def disk_error(error: OSError, written: int = 0) -> BadInput:
    """The error of the client for one of the system; `written` : bytes of the table that were written before."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        size = f"{written / 2**30:.1f} GiB" if written >= 2**30 else f"{written / 2**20:.1f} MiB"
        return BadInput(
            f"the disk is full: parameters.input.db keeps the table on disk, and {size} of it were written when no "
            "space was left; free some, or train without db if the memory can hold the table"
        )
    reason = (error.strerror or "unknown error").lower()
    return BadInput(f"the table that parameters.input.db keeps on disk cannot be written: {reason}")
