"""Each degradation does what its name says, the same way every time, and bad conditions are named in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio.degrade import Degrader, parse_degradations, room
from asr.audio.noise import seeded, speech_power
from asr.types import AudioError, ConfigError, UsageError

RATE = 16000


def degrade(word: str, samples: np.ndarray, name: str = "u1", rate: int = RATE, **options: object) -> np.ndarray:
    folders = {key: str(options[key]) for key in ("noise_dir", "reverb_dir") if key in options}
    [degradation] = parse_degradations([word], **folders)
    return Degrader([degradation], rate, **folders)(degradation, samples, name, options.get("other"))  # type: ignore[arg-type]


def other(draw: object) -> np.ndarray:
    return np.random.default_rng(draw.getrandbits(32)).standard_normal(RATE).astype(np.float32)  # type: ignore[attr-defined]


@pytest.mark.parametrize("word", ["noise:5", "noise:pink:5", "noise:babble:5", "reverb", "speed:0.9", "mp3:32", "clip"])
def test_the_id_decides_and_nothing_else(voice: np.ndarray, word: str) -> None:
    before = voice.copy()
    result = degrade(word, voice, other=other)
    np.random.seed(1)
    assert np.array_equal(result, degrade(word, voice, other=other))
    assert np.array_equal(voice, before) and result.dtype == np.float32
    another = degrade(word, voice, "u2", other=other)
    assert np.array_equal(result, another) == (word in ("speed:0.9", "mp3:32", "clip"))


@pytest.mark.parametrize("kind", ["white", "pink", "babble", "recorded"])
def test_the_same_noise_at_the_ratio_asked_for(voice: np.ndarray, tmp_path: Path, kind: str) -> None:
    soundfile.write(tmp_path / "n.wav", 0.1 * np.random.default_rng(2).standard_normal(5 * RATE), RATE)
    folder = {"noise_dir": tmp_path} if kind == "recorded" else {}
    added = [degrade(f"noise:{kind}:{snr}", voice, other=other, **folder) - voice for snr in (20, 0)]
    for snr, noise in zip((20, 0), added, strict=True):
        measured = 10 * np.log10(speech_power(voice, RATE) / np.mean(np.square(noise, dtype=float)))
        assert measured == pytest.approx(snr, abs=0.05)
    np.testing.assert_allclose(10 * added[0], added[1], atol=1e-5)


def test_a_room_decays_as_long_as_it_says() -> None:
    for seconds in (0.3, 1.0):
        impulse = room(seconds, RATE, seeded("room", (1,))).astype(float)
        assert impulse[0] == np.abs(impulse).max() == 1.0
        assert np.sum(impulse[1:] ** 2) == pytest.approx(1.0, rel=1e-5)  # critical distance
        left = 10 * np.log10(np.cumsum(impulse[:0:-1] ** 2)[::-1])  # Schroeder's integral of what is to come
        at = [int(np.argmax(left <= level)) for level in (-5, -25)]
        assert 3 * (at[1] - at[0]) / RATE == pytest.approx(seconds, rel=0.1)  # T20


def test_reverb_smears_and_keeps_level_and_length(voice: np.ndarray, tmp_path: Path) -> None:
    click = np.zeros(RATE, np.float32)
    click[2000] = 0.5
    heard = degrade("reverb:0.4", click)
    assert len(heard) == RATE and int(np.abs(heard).argmax()) == 2000
    assert np.sum(heard**2) == pytest.approx(0.25, rel=1e-3)
    assert not heard[:1999].round(4).any() and np.abs(heard[3000:6000]).max() > 1e-3
    assert not heard[2001 + int(0.4 * RATE) :].round(4).any()
    soundfile.write(tmp_path / "echo.wav", np.array([0.9] + [0.0] * 799 + [0.45]), RATE, subtype="FLOAT")
    echo = degrade("reverb", voice, reverb_dir=tmp_path)
    expected = voice + 0.5 * np.concatenate([np.zeros(800), voice[:-800]])
    assert np.corrcoef(echo, expected)[0, 1] > 0.99999


def test_a_narrow_band_has_nothing_above_it(voice: np.ndarray) -> None:
    hiss = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    narrow = degrade("band:8000", hiss)
    assert len(narrow) == RATE
    before, after = (np.abs(np.fft.rfft(x)) ** 2 for x in (hiss, narrow))
    assert after[4100:].sum() < 1e-5 * before[4100:].sum()
    assert after[:3500].sum() == pytest.approx(before[:3500].sum(), rel=0.02)


def test_speed_changes_length_only_as_asked(voice: np.ndarray) -> None:
    assert len(degrade("speed:0.5", voice)) == 2 * len(voice)
    assert len(degrade("speed:1.25", voice)) == len(voice) * 4 // 5


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_mp3_is_aligned_and_worse_at_lower_rates(voice: np.ndarray, rate: int) -> None:
    louder = 5 * voice  # beyond full scale, where a file would be cut off
    bit_rates = (8, 16, 24, 64) if rate < 32000 else (32, 64, 320)
    correlations = []
    for bit_rate in bit_rates:
        decoded = degrade(f"mp3:{bit_rate}", louder, rate=rate)
        assert len(decoded) == len(voice)
        correlations.append(float(np.corrcoef(decoded, louder)[0, 1]))
    assert correlations[0] > 0.9 and correlations[-1] > 0.999 and correlations == sorted(correlations)
    assert decoded.std() == pytest.approx(louder.std(), rel=0.06) and np.abs(louder).max() > 1.0
    assert len(degrade("mp3:32", voice[:100], rate=rate)) == 100


def test_gain_is_that_of_16_bits(voice: np.ndarray) -> None:
    quiet = degrade("gain:-40", voice)
    assert np.array_equal(quiet * 32768, np.round(quiet * 32768))
    np.testing.assert_allclose(quiet, voice / 100, atol=0.51 / 32768)
    loud = degrade("gain:20", voice)
    assert loud.max() == pytest.approx(1.0, abs=1e-4) and loud.min() == -1.0
    assert not degrade("gain:-90", voice / 10).any()


def test_clipping_cuts_at_a_share_of_the_peak(voice: np.ndarray) -> None:
    clipped = degrade("clip:0.2", voice)
    limit = 0.2 * np.abs(voice).max()
    np.testing.assert_allclose(clipped, np.clip(voice, -limit, limit))
    assert np.array_equal(degrade("clip", voice), degrade("clip:0.25", voice))
    assert np.array_equal(degrade("clip:1", voice), voice)


@pytest.mark.parametrize("word", ["noise:5", "reverb", "speed:0.9", "band:8000", "mp3:32", "gain:-20", "clip"])
def test_silence_stays_silence(word: str) -> None:
    assert not degrade(word, np.zeros(3000, np.float32)).any()


def test_conditions_are_written_out_with_their_defaults_and_once() -> None:
    words = ["noise:20,0", "noise:pink:5", "noise:white:20", "reverb", "reverb:0.5", "clip", "gain:-20"]
    names = [d.name for d in parse_degradations(words)]
    assert names == ["noise:white:20", "noise:white:0", "noise:pink:5", "reverb:0.5", "clip:0.25", "gain:-20"]
    recorded = parse_degradations(["noise:5", "noise:white:5", "reverb", "reverb:1"], "n", "r")
    assert [d.name for d in recorded] == ["noise:recorded:5", "noise:white:5", "reverb:recorded", "reverb:1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hiss:10"], "unknown degradation 'hiss' .valid: band, "),
        (["nois:10"], "unknown degradation 'nois' .did you mean 'noise'"),
        (["noise:5", "test.jsonl"], "put the manifests before --degrade"),
        (["noise"], "noise: no value in dB of SNR, expected noise:VALUE"),
        (["noise:loud"], "'loud' is not a number .dB of SNR., or white, pink, babble, recorded"),
        (["noise:pink"], "no value in dB"),
        (["noise:5,"], "'' is not a number"),
        (["noise:nan"], "nan dB of SNR is not from -30 to 80"),
        (["noise:recorded:5"], "give a folder of recordings with --noise-dir"),
        (["noise:5:pink"], "expected noise:VALUE"),
        (["reverb:recorded"], "--reverb-dir"),
        (["speed:3"], "3 times the speed is not from 0.5 to 2"),
        (["band:10"], "10 Hz of sampling rate is not at least 1000"),
        (["clip:0"], "0 of the peak is not from 0.001 to 1"),
    ],
)
def test_bad_conditions_are_named(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_degradations(words)
    assert "\n" not in str(caught.value)


def test_folders_without_use_or_recordings_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--noise-dir is not used: add noise:recorded"):
        parse_degradations(["noise:pink:5"], noise_dir=str(tmp_path))
    with pytest.raises(ConfigError, match=r"--noise-dir: .* holds no recordings"):
        degrade("noise:5", np.ones(10, np.float32), noise_dir=tmp_path)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    with pytest.raises(AudioError, match="the recorded noise is silent"):
        degrade("noise:5", np.ones(10, np.float32), noise_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"--reverb-dir: .* is not a folder"):
        degrade("reverb", np.ones(10, np.float32), reverb_dir=tmp_path / "none")


def test_what_the_rate_of_the_model_does_not_allow_is_named(voice: np.ndarray) -> None:
    with pytest.raises(UsageError, match="band:16000: the model listens at 16000 Hz: choose a lower rate"):
        degrade("band:16000", voice)
    with pytest.raises(UsageError, match="mp3:320: at 16000 Hz, MP3 has 8 to 160 kbit/s"):
        degrade("mp3:320", voice)
    with pytest.raises(UsageError, match="no MP3 at 15000 Hz"):
        degrade("mp3:32", voice, rate=15000)
    with pytest.raises(AudioError, match="no other utterance could be read"):
        degrade("noise:babble:5", voice, other=lambda _: np.zeros(0, np.float32))
