"""TIMIT's phones in 48 and 39 classes, against the sizes of the published table and its known members."""

from __future__ import annotations

from asr.text.normalize import normalize

_NAMES = (
    "aa ae ah ao aw ax ax-h axr ay b bcl ch d dcl dh dx eh el em en eng epi er ey f g gcl h# hh hv ih ix iy jh k kcl l "
    "m n ng nx ow oy p pau pcl q r s sh t tcl th uh uw ux v w y z zh"
)
PHONES = _NAMES.split()


def test_sizes_of_the_classes() -> None:
    assert len(set(PHONES)) == 61
    assert len(set(normalize(" ".join(PHONES), "timit48").split())) == 48
    assert len(set(normalize(" ".join(PHONES), "timit39").split())) == 39


def test_folding_in_two_steps_is_folding_at_once() -> None:
    for phone in PHONES:
        assert normalize(normalize(phone, "timit48"), "timit39") == normalize(phone, "timit39")


def test_an_utterance() -> None:
    spoken = "h# sh iy hv ae dcl d q ix zh axr pau pcl p en h#"
    assert normalize(spoken, "timit48") == "sil sh iy hh ae vcl d ix zh er sil cl p en sil"
    assert normalize(spoken, "timit39") == "sil sh iy hh ae sil d ih sh er sil sil p n sil"
