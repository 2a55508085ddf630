"""Augmentation: decided by the seed alone, true to its settings, and harmless where there is nothing to augment."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.augment import AugmentConfig, WaveAugment, change_speed, reverb, spec_augment
from asr.audio.noise import speech_power
from asr.config import from_dict
from asr.types import ConfigError

ROOT = Path(__file__).parents[2]
Encode = Callable[..., bytes]
RATE = 16000


def power(samples: np.ndarray) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64)))


@pytest.fixture
def folders(tmp_path: Path, encode: Encode) -> tuple[Path, Path]:
    """A folder with noises (a long one, a short one at another rate, one below) and one with impulse responses."""
    generator = np.random.default_rng(1)
    noises, impulses = tmp_path / "noise", tmp_path / "rir"
    (noises / "deep").mkdir(parents=True)
    impulses.mkdir()
    (noises / "long.flac").write_bytes(encode(0.1 * generator.standard_normal(8 * RATE), "FLAC"))
    (noises / "short.wav").write_bytes(encode(0.1 * generator.standard_normal(900), rate=8000))
    (noises / "deep" / "street.ogg").write_bytes(encode(0.1 * generator.standard_normal((RATE, 2)), "OGG"))
    (noises / "README.txt").write_text("no recording", encoding="utf-8")
    decay = np.exp(-np.arange(4000) / 600) * generator.standard_normal(4000) * 0.1
    decay[37] = 0.9
    (impulses / "room.wav").write_bytes(encode(decay))
    return noises, impulses


@pytest.fixture
def everything(folders: tuple[Path, Path]) -> AugmentConfig:
    return AugmentConfig(
        speed=(0.9, 1.0, 1.1),
        gain_db=6.0,
        noise_dir=str(folders[0]),
        noise_probability=0.8,
        reverb_dir=str(folders[1]),
        reverb_probability=0.5,
        time_masks=3,
        frequency_masks=2,
    )


def test_by_default_nothing_happens(voice: np.ndarray) -> None:
    result = WaveAugment(AugmentConfig(), RATE)(voice, (1, 2, 3))
    assert np.array_equal(result, voice) and result is not voice
    features = torch.randn(2, 50, 80)
    assert torch.equal(spec_augment(features, [50, 20], AugmentConfig(), [(1,), (2,)]), features)


def test_the_seed_decides_and_nothing_else(voice: np.ndarray, everything: AugmentConfig) -> None:
    augment = WaveAugment(everything, RATE)
    before = voice.copy()
    results = [augment(voice, (7, 0, index)) for index in range(12)]
    assert np.array_equal(voice, before)
    np.random.seed(5)
    torch.manual_seed(5)
    again = pickle.loads(pickle.dumps(augment))
    for index in reversed(range(12)):
        assert np.array_equal(again(voice, (7, 0, index)), results[index])
    for other in ((7, 1, 3), (8, 0, 3), (7, 0, 4)):  # another epoch, run, utterance
        assert not np.array_equal(augment(voice, other), results[3])
    for result in results:
        assert result.dtype == np.float32 and np.isfinite(result).all() and np.abs(result).max() <= 1.0
    assert {len(result) for result in results} <= {-(-len(voice) * 10 // 9), len(voice), -(-len(voice) * 10 // 11)}


def test_the_same_in_another_process(tmp_path: Path, voice: np.ndarray, everything: AugmentConfig) -> None:
    augment = WaveAugment(everything, RATE)
    (tmp_path / "augment.pickle").write_bytes(pickle.dumps(augment))
    np.save(tmp_path / "voice.npy", voice)
    code = (
        "import pickle, sys, numpy as np\n"
        f"augment = pickle.load(open({str(tmp_path / 'augment.pickle')!r}, 'rb'))\n"
        f"np.save({str(tmp_path / 'result.npy')!r}, augment(np.load({str(tmp_path / 'voice.npy')!r}), (1, 0, 2)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    np.testing.assert_allclose(np.load(tmp_path / "result.npy"), augment(voice, (1, 0, 2)), atol=1e-6)


def test_switching_one_off_leaves_the_others(voice: np.ndarray, folders: tuple[Path, Path]) -> None:
    both = AugmentConfig(gain_db=6.0, noise_dir=str(folders[0]), noise_probability=1.0, noise_snr_db=(90.0, 90.0))
    with_noise, without = (WaveAugment(c, RATE)(voice, (3, 1, 4)) for c in (both, AugmentConfig(gain_db=6.0)))
    np.testing.assert_allclose(with_noise, without, atol=1e-3)


def test_silence_at_both_ends_leaves_the_utterance(voice: np.ndarray, folders: tuple[Path, Path]) -> None:
    ends = set()
    for index in range(40):
        alone = WaveAugment(AugmentConfig(gain_db=6.0, speed=(0.9, 1.1)), RATE)(voice, (3, 1, index))
        result = WaveAugment(AugmentConfig(gain_db=6.0, speed=(0.9, 1.1), silence=0.5), RATE)(voice, (3, 1, index))
        found = np.flatnonzero(np.isclose(result[: len(result) - len(alone) + 1], alone[0], atol=1e-6))
        [before] = [i for i in found if np.allclose(result[i : i + len(alone)], alone, atol=1e-6)]
        after = len(result) - before - len(alone)
        assert 0 <= before <= 0.5 * RATE and 0 <= after <= 0.5 * RATE
        ends.add((before > 0, after > 0))
    assert len(ends) == 4  # none, either, both


def test_joined_are_all_of_them_with_silence_between(voice: np.ndarray) -> None:
    augment = WaveAugment(AugmentConfig(silence=0.2), RATE)
    parts = [voice, voice[:5000], voice[3000:]]
    lengths = set()
    for index in range(10):
        joined = augment.join(parts, (1, 2, index))
        assert np.array_equal(joined, augment.join(parts, (1, 2, index)))
        assert np.array_equal(joined[: len(voice)], voice) and np.array_equal(joined[-len(parts[2]) :], parts[2])
        seconds = (len(joined) - sum(map(len, parts))) / RATE
        assert 0.0 <= seconds <= 2 * 0.2 + 1e-3
        lengths.add(len(joined))
    assert len(lengths) > 5
    assert np.array_equal(augment.join([voice], (0, 0, 0)), voice)


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_speed_changes_length_and_pitch(speed: float) -> None:
    time = np.arange(RATE) / RATE
    tone = (0.5 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)
    result = change_speed(tone, speed)
    assert len(result) == int(np.ceil(round(RATE / speed, 6)))
    spectrum = np.abs(np.fft.rfft(result * np.hanning(len(result))))
    assert spectrum.argmax() * RATE / len(result) == pytest.approx(1000 * speed, abs=1.5)
    assert np.abs(result[1000:-1000]).max() == pytest.approx(0.5, abs=0.01)


def test_drawn_snrs_cover_the_range(voice: np.ndarray, folders: tuple[Path, Path]) -> None:
    config = AugmentConfig(noise_dir=str(folders[0]), noise_probability=1.0, noise_snr_db=(5.0, 20.0))
    augment = WaveAugment(config, RATE)
    quiet = voice * 0.1  # so that nothing is scaled back
    speech = speech_power(quiet, RATE)
    found = [10 * np.log10(speech / power(augment(quiet, (0, 0, i)) - quiet)) for i in range(60)]
    assert 4.9 < min(found) < 8.0 and 17.0 < max(found) < 20.1


def test_noise_is_made_of_the_kinds_named_and_of_the_folder(voice: np.ndarray, folders: tuple[Path, Path]) -> None:
    """The other voices are tones near 6 kHz."""
    config = AugmentConfig(noise=("white", "babble"), noise_dir=str(folders[0]), noise_probability=1.0)
    augment = WaveAugment(config, RATE)
    time = np.arange(RATE) / RATE
    kinds = set()
    for i in range(30):
        asked: list[object] = []

        def other(draw: object, asked: list[object] = asked) -> np.ndarray:
            asked.append(draw)
            return np.sin(2 * np.pi * (6000 + len(asked) % 6) * time).astype(np.float32)

        quiet = 0.1 * voice
        result = augment(quiet, (0, 0, i), other)
        assert np.array_equal(result, augment(quiet, (0, 0, i), other))
        spectrum = np.abs(np.fft.rfft(result - quiet)) ** 2
        tone = spectrum[11990:12050].sum() / spectrum.sum()
        assert (tone > 0.9) == bool(asked)
        kinds.add("babble" if asked else "other")
        if asked:  # without other voices there is no babble
            assert np.array_equal(augment(quiet, (0, 0, i)), quiet)
    assert kinds == {"babble", "other"}


def test_probability_is_kept(voice: np.ndarray, folders: tuple[Path, Path]) -> None:
    config = AugmentConfig(noise_dir=str(folders[0]), noise_probability=0.3)
    augment = WaveAugment(config, RATE)
    short = voice[:800]
    changed = sum(not np.array_equal(augment(short, (0, 0, i)), short) for i in range(300))
    assert 60 < changed < 125  # 90 expected; +-3.8 standard deviations


def test_silence_is_left_alone(folders: tuple[Path, Path]) -> None:
    config = AugmentConfig(noise_dir=str(folders[0]), noise_probability=1.0, reverb_dir=str(folders[1]), gain_db=6.0)
    augment = WaveAugment(config, RATE)
    for samples in (np.zeros(8000, np.float32), np.zeros(1, np.float32), np.zeros(0, np.float32)):
        assert np.array_equal(augment(samples, (0, 0, 0)), samples)


def test_reverberation_keeps_length_level_and_time(voice: np.ndarray, folders: tuple[Path, Path]) -> None:
    generator = np.random.default_rng(3)
    impulse = np.concatenate([np.zeros(200), [1.0], 0.05 * generator.standard_normal(3000)]).astype(np.float32)
    result = reverb(voice, impulse)
    assert len(result) == len(voice)
    assert power(result) == pytest.approx(power(voice), rel=1e-4)
    oracle = np.convolve(voice, impulse)[200 : 200 + len(voice)]
    np.testing.assert_allclose(result, oracle * np.sqrt(power(voice) / power(oracle)), atol=1e-4)
    np.testing.assert_allclose(reverb(voice, np.array([0.0, 0.5], np.float32)), voice, atol=1e-5)
    assert np.array_equal(reverb(voice, np.zeros(10, np.float32)), voice)


@pytest.mark.parametrize("level", [0.5, 0.99, 3.0])
def test_no_clipping_arises(voice: np.ndarray, level: float) -> None:
    loud = voice * np.float32(level / np.abs(voice).max())
    augment = WaveAugment(AugmentConfig(gain_db=20.0), RATE)
    for index in range(20):
        result = augment(loud, (0, 0, index))
        assert np.abs(result).max() <= max(1.0, level)
        assert np.corrcoef(result, loud)[0, 1] > 0.9999  # scaled as a whole, not cut off


@pytest.mark.parametrize("key", ["noise_dir", "reverb_dir"])
def test_folders_that_cannot_serve(tmp_path: Path, key: str) -> None:
    def message(folder: Path) -> str:
        with pytest.raises(ConfigError, match=f"augment.{key}: ") as caught:
            WaveAugment(AugmentConfig(**{key: str(folder)}), RATE)
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
        return str(caught.value)

    assert "is not a folder" in message(tmp_path / "none")
    (tmp_path / "notes.txt").touch()
    assert "holds no recordings" in message(tmp_path)
    (tmp_path / "bad.wav").write_bytes(b"RIFF nonsense")
    assert "bad.wav" in message(tmp_path)


def test_a_noise_that_vanishes_is_named(voice: np.ndarray, folders: tuple[Path, Path]) -> None:
    augment = WaveAugment(AugmentConfig(noise_dir=str(folders[0]), noise_probability=1.0), RATE)
    for path in folders[0].rglob("*.*"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"augment.noise_dir: .*no such file"):
        augment(voice, (0, 0, 0))


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"speed": [0.1]}, "speed"),
        ({"noise_probability": 1.5}, "noise_probability"),
        ({"noise": ["pinkish"]}, "did you mean 'pink'"),
        ({"gain_db": -1.0}, "gain_db"),
        ({"silence": -0.1}, "silence"),
        ({"join": 1.1}, "join"),
        ({"join_up_to": 1}, "join_up_to"),
        ({"noise_snr_db": [20.0, 5.0]}, "noise_snr_db"),
        ({"time_mask_ratio": 2.0}, "time_mask_ratio"),
        ({"time_mask": 2}, "time_masks"),
    ],
)
def test_settings_that_cannot_work_are_named(setting: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        from_dict(AugmentConfig, setting)


class TestSpecAugment:
    config = AugmentConfig(time_masks=4, time_mask_ratio=0.1, frequency_masks=2, frequency_mask_width=20)

    @settings(max_examples=30, deadline=None)
    @given(
        lengths=st.lists(st.integers(0, 300), min_size=1, max_size=5), extra=st.integers(0, 50), seed=st.integers(0, 99)
    )
    def test_alone_as_in_any_batch_and_within_its_length(self, lengths: list[int], extra: int, seed: int) -> None:
        features = torch.randn(len(lengths), max(lengths) + extra, 40) + 5.0
        before = features.clone()
        counts = lengths
        seeds = [(seed, 0, index) for index in range(len(lengths))]
        masked = spec_augment(features, counts, self.config, seeds)
        assert torch.equal(features, before)
        kept = masked != 0
        assert torch.equal(masked[kept], features[kept])
        for row, length in enumerate(lengths):
            own = features[row : row + 1, :length]
            alone = spec_augment(own, counts[row : row + 1], self.config, [seeds[row]])
            assert torch.equal(alone[0], masked[row, :length])
            bands = (masked[row] == 0).all(dim=0)  # frequency masks reach through the padding, time masks never
            assert kept[row, length:][:, ~bands].all()

    def test_random_states_are_left_alone(self) -> None:
        state = torch.get_rng_state()
        spec_augment(torch.ones(1, 100, 80), [100], self.config, [(1, 2, 3)])
        assert torch.equal(torch.get_rng_state(), state)

    def test_widths_follow_the_distribution(self) -> None:
        """One mask of fewer than W bins: widths 0 to W - 1 equally likely, as torchaudio draws them."""
        rows, length, width = 4000, 200, 20
        seeds = [(0, 0, index) for index in range(rows)]
        ones, counts = torch.ones(rows, length, 30), [length] * rows
        one_time = AugmentConfig(time_masks=1, time_mask_ratio=width / length)
        widths = (spec_augment(ones, counts, one_time, seeds)[:, :, 0] == 0).sum(dim=1)
        counted = torch.bincount(widths, minlength=width)
        assert len(counted) == width
        assert (counted - rows / width).abs().max() < 5 * (rows / width) ** 0.5
        one_band = AugmentConfig(frequency_masks=1, frequency_mask_width=10)
        bands = (spec_augment(ones, counts, one_band, seeds)[:, 0] == 0).sum(dim=1)
        assert torch.bincount(bands).shape == (10,)
        assert bands.float().mean() == pytest.approx(4.5, abs=0.3)

    def test_masks_are_stretches_and_cover_all_places(self) -> None:
        seeds = [(0, 0, index) for index in range(500)]
        config = AugmentConfig(time_masks=1, time_mask_ratio=0.2)
        gone = spec_augment(torch.ones(500, 100, 4), [100] * 500, config, seeds)[:, :, 0] == 0
        starts = torch.diff(gone.int(), dim=1, prepend=torch.zeros(500, 1, dtype=torch.int32)) == 1
        assert (starts.sum(dim=1) <= 1).all()
        assert gone.any(dim=0)[:99].all()

    def test_relative_to_the_own_length(self) -> None:
        config = AugmentConfig(time_masks=1, time_mask_ratio=0.1)
        features, lengths = torch.ones(400, 1000, 2), [1000, 100] * 200
        gone = (spec_augment(features, lengths, config, [(0, 0, i) for i in range(400)])[:, :, 0] == 0).sum(dim=1)
        assert 85 < gone[::2].max() < 100 and 7 <= gone[1::2].max() < 10

    def test_a_band_wider_than_the_features_is_cut_to_them(self) -> None:
        config = AugmentConfig(frequency_masks=1, frequency_mask_width=500)
        masked = spec_augment(torch.ones(20, 10, 8), [10] * 20, config, [(i,) for i in range(20)])
        assert 0 < (masked == 0).float().mean() < 1

    def test_features_that_are_not_normalized_are_masked_with_their_means(self) -> None:
        features, counts, seeds = torch.randn(2, 60, 8) - 9.0, [60, 40], [(1,), (2,)]
        features[1, 40:] = 0.0
        masked = spec_augment(features, counts, self.config, seeds, normalized=False)
        for row, count in enumerate(counts):
            mean = features[row, :count].mean(dim=0)
            hidden = spec_augment(torch.ones(2, 60, 8), counts, self.config, seeds)[row, :count] == 0
            assert hidden.any()
            expected = torch.where(hidden, mean, features[row, :count])
            torch.testing.assert_close(masked[row, :count], expected)
            assert torch.equal(masked[row, count:], features[row, count:])

    def test_every_utterance_needs_its_seed(self) -> None:
        with pytest.raises(ValueError, match="shorter"):
            spec_augment(torch.ones(2, 10, 8), [10, 10], self.config, [(1,)])
