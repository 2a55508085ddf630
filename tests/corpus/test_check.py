"""What training is told of a manifest: feasibility against brute force and the loss, unknown symbols, skips."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.audio.features import FeatureConfig
from asr.corpus.check import Skip, UnknownSymbol, frames_needed, infeasible, unknown_symbols, write_skipped
from asr.corpus.manifest import Utterance
from asr.model.acoustic import output_length
from asr.model.config import RecurrentConfig
from asr.text.tokenizer import CharTokenizer, train_sentencepiece
from asr.types import ConfigError

TOKENIZER = CharTokenizer(["", " ", *"abcdefgh"])


def emitted_by(model: RecurrentConfig, rate: int = 16000) -> Callable[[int], int]:
    return lambda samples: output_length(samples, FeatureConfig(rate=rate), model)


def manifest(*rows: tuple[str, float]) -> list[Utterance]:
    return [Utterance(f"u{i}", f"/{i}.wav", duration, text) for i, (text, duration) in enumerate(rows)]


def spelled(frames: int, symbols: int) -> Iterator[tuple[int, ...]]:
    """What each of all paths of `frames` frames over the blank and `symbols` symbols collapses to."""
    for path in itertools.product(range(symbols + 1), repeat=frames):
        yield tuple(token for token, _ in itertools.groupby(path) if token)


def test_frames_needed_equals_brute_force_over_all_paths() -> None:
    symbols = 2
    possible = {frames: set(spelled(frames, symbols)) for frames in range(8)}
    for length in range(5):
        for target in itertools.product(range(1, symbols + 1), repeat=length):
            for frames, reachable in possible.items():
                assert (target in reachable) == (frames >= frames_needed(target)), (target, frames)


@given(target=st.lists(st.integers(1, 3), min_size=1, max_size=6), frames=st.integers(1, 12))
def test_frames_needed_equals_where_the_loss_is_finite(target: list[int], frames: int) -> None:
    import torch

    log_probs = torch.zeros(frames, 1, 4).log_softmax(-1)
    loss = torch.nn.functional.ctc_loss(
        log_probs, torch.tensor([target]), torch.tensor([frames]), torch.tensor([len(target)])
    )
    assert bool(torch.isfinite(loss)) == (frames >= frames_needed(target))


@pytest.mark.parametrize("subsampling", [2, 4, 8])
@pytest.mark.parametrize("text", ["a", "ab", "aab", "a a", "abcdefgh", "aaaa bbbb"])
def test_infeasible_draws_the_line_at_the_models_output_length(subsampling: int, text: str) -> None:
    features, model = FeatureConfig(rate=8000), RecurrentConfig(subsampling=subsampling)  # type: ignore[arg-type]
    needed = len(text) + sum(a == b for a, b in itertools.pairwise(text))
    shortest = next(n for n in itertools.count(1) if output_length(n, features, model) >= needed)
    rows = manifest(*((text, samples / 8000) for samples in (shortest - 1, shortest) if samples))
    found = infeasible(rows, TOKENIZER, "none", 8000, emitted_by(model, 8000))
    assert [skip.id for skip in found] == [u.id for u in rows if round(u.duration * 8000) < shortest]
    for skip in found:
        assert f"CTC needs {needed} ({len(text)} tokens, {needed - len(text)} adjacent repeats)" in skip.reason


def test_infeasible_names_each_reason_in_order() -> None:
    rows = manifest(("abc", 1.0), ("...", 1.0), ("", 1.0), ("ab\u00e9", 1.0), ("a", 0.0), ("aaaaaaaa", 0.05))
    found = infeasible(rows, TOKENIZER, "basic", 16000, emitted_by(RecurrentConfig()))
    assert [skip.id for skip in found] == ["u1", "u2", "u3", "u4", "u5"]
    reasons = [skip.reason for skip in found]
    assert reasons[:4] == [
        "the text is empty",
        "the text is empty",
        "the tokenizer cannot spell '\u00e9' (U+00E9)",
        "no audio (0 s)",
    ]
    assert "0.05 s are" in reasons[4]


def test_infeasible_counts_tokens_not_characters() -> None:
    tokenizer = train_sentencepiece(["abcdefgh " * 20], 30)
    row = manifest(("abcdefgh", 0.1))
    assert infeasible(row, TOKENIZER, "none", 16000, emitted_by(RecurrentConfig(subsampling=4)))
    assert not infeasible(row, tokenizer, "none", 16000, emitted_by(RecurrentConfig(subsampling=4)))


def test_infeasible_leaves_room_for_speed_perturbation() -> None:
    features, model = FeatureConfig(), RecurrentConfig(subsampling=2)
    shortest = next(n for n in itertools.count(1) if output_length(n, features, model) >= 8)
    row = manifest(("abcdefgh", shortest / 16000))
    assert not infeasible(row, TOKENIZER, "none", 16000, emitted_by(model))
    assert infeasible(row, TOKENIZER, "none", 16000, emitted_by(model), speed=1.1)


def test_infeasible_refuses_an_unknown_normalizer() -> None:
    with pytest.raises(ConfigError, match="unknown normalizer 'bassic'"):
        infeasible(manifest(("a", 1.0)), TOKENIZER, "bassic", 16000, emitted_by(RecurrentConfig()))


def test_unknown_symbols_are_counted_with_examples() -> None:
    rows = manifest(("ab3", 1), ("33 \u00e9", 1), ("abc", 1), ("3", 1), ("3\u00e9", 1))
    assert unknown_symbols(rows, TOKENIZER, "basic", examples=2) == [
        UnknownSymbol("3", 5, ("u0", "u1")),
        UnknownSymbol("\u00e9", 2, ("u1", "u4")),
    ]
    assert unknown_symbols(manifest(("A, B!", 1)), TOKENIZER, "basic") == []


@pytest.mark.parametrize("skips", [[], [Skip("a", "too\tshort\nfor it"), Skip("b", "empty")]])
def test_write_skipped(skips: Sequence[Skip], tmp_path: Path) -> None:
    path = tmp_path / "new" / "skipped.tsv"
    write_skipped(path, skips)
    expected = "id\treason\n" + "a\ttoo short for it\nb\tempty\n" * bool(skips)
    assert path.read_text(encoding="utf-8") == expected
    assert list(path.parent.iterdir()) == [path]
