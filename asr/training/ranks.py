"""Which process of a distributed run this is, as its launcher says: torchrun, SLURM, LSF or Lightning."""

from __future__ import annotations

import os

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def is_first_process() -> bool:
    """True in an ordinary process and in rank 0; the others leave preparation, locks and messages to it."""
    return all(os.environ.get(name, "0").strip() in ("", "0") for name in _RANKS)
