"""Lines of NIST's text formats, as sclite reads them."""

from __future__ import annotations


def nist_id(name: str) -> str:
    """White space and parentheses end an id in the NIST formats."""
    return "".join("_" if c.isspace() or c in "()" else c for c in name) or "utterance"


def trn_line(text: str, utterance_id: str) -> str:
    """One line of a trn file."""
    return f"{text} ({nist_id(utterance_id)})\n"
