"""TIMIT's phones folded into fewer classes, as results on TIMIT are reported.

K.-F. Lee and H.-W. Hon, "Speaker-independent phone recognition using hidden Markov models", IEEE Transactions on
Acoustics, Speech, and Signal Processing 37(11), 1989: training on 48 phones, scoring on 39. The glottal stop `q` is
left out. A closure next to a pause gives two `sil`; they are not merged.
"""

from __future__ import annotations

_TO_48 = {
    "ax-h": "ax", "axr": "er", "em": "m", "eng": "ng", "hv": "hh", "nx": "n", "ux": "uw", "h#": "sil", "pau": "sil",
    "bcl": "vcl", "dcl": "vcl", "gcl": "vcl", "kcl": "cl", "pcl": "cl", "tcl": "cl", "q": "",
}  # fmt: skip
_TO_39 = {
    "ao": "aa", "ax": "ah", "el": "l", "en": "n", "ix": "ih", "zh": "sh", "cl": "sil", "epi": "sil", "vcl": "sil",
}  # fmt: skip


def timit48(text: str) -> str:
    """Phones separated by spaces, with TIMIT's 61 folded into 48; others stay."""
    return " ".join(folded for phone in text.split() if (folded := _TO_48.get(phone, phone)))


def timit39(text: str) -> str:
    """Phones separated by spaces, with TIMIT's 61, or the 48, folded into 39; others stay."""
    return " ".join(_TO_39.get(phone, phone) for phone in timit48(text).split())
