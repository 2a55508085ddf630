"""What several areas' tests need: a tiny model file with random weights, and recordings to feed it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parent.parent
RATE = 16000


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that hears noise as many short words: the weights are random and the last layer's are large."""
    import torch

    from asr.audio.features import FeatureConfig
    from asr.model.acoustic import AcousticModel
    from asr.model.checkpoint import save_model
    from asr.model.config import RecurrentConfig
    from asr.text.tokenizer import CharTokenizer

    tokenizer = CharTokenizer(["", " ", *"abcde"])
    config = RecurrentConfig(subsampling_channels=4, hidden_size=16, layers=1, dropout=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = AcousticModel(config, FeatureConfig(n_mels=20), tokenizer.vocab_size)
        with torch.no_grad():
            model.output.weight *= 40.0
            model.output.bias[1] += 2.0  # spaces, so that words are short
    path = tmp_path_factory.mktemp("model") / "tiny.asr"
    return save_model(path, model, tokenizer, "basic", {"dev_wer": 0.99, "epochs": 0})


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with random weights and three classes, as if trained on utterances of half a second."""
    import torch

    from asr.audio.features import FeatureConfig
    from asr.model.checkpoint import save_model
    from asr.model.classifier import Classifier
    from asr.model.config import RecurrentConfig
    from asr.text.tokenizer import LabelSet

    config = RecurrentConfig(subsampling_channels=4, hidden_size=16, layers=1, dropout=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(6)
        model = Classifier(config, FeatureConfig(n_mels=20), 3, "mean")
        with torch.no_grad():
            model.output.weight *= 40.0
    training = {"train_utterances": 7200, "train_hours": 1.0, "train_longest": 0.6}
    path = tmp_path_factory.mktemp("classifier") / "words.asr"
    return save_model(path, model, LabelSet(["bird", "cat", "dog"], [3, 2, 2]), "none", training, "classification")


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """`noise(seconds, seed)`: (time,) float32 at 16 kHz whose color and loudness change, so that a model has work."""

    def make(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
        generator = np.random.default_rng(seed)
        samples = generator.standard_normal(round(seconds * rate))
        time = np.arange(len(samples)) / rate
        tone = np.sin(2 * np.pi * np.cumsum(400 + 300 * np.sin(2 * np.pi * 1.7 * time + seed)) / rate)
        envelope = 0.3 + 0.7 * np.abs(np.sin(2 * np.pi * 2.3 * time + seed))
        return (0.2 * envelope * (tone + 0.3 * samples)).astype(np.float32)

    return make


@pytest.fixture
def write_audio(noise: Callable[..., np.ndarray]) -> Callable[..., Path]:
    """`write_audio(path, seconds, seed, rate, channels)`: a sound file of noise, its folders made."""

    def write(path: Path, seconds: float = 1.0, seed: int = 0, rate: int = RATE, channels: int = 1) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = np.stack([noise(seconds, seed + channel, rate) for channel in range(channels)], axis=1)
        soundfile.write(path, samples, rate)
        return path

    return write


@pytest.fixture
def piped() -> Iterator[Callable[[bytes], Path]]:
    """`piped(content)`: the path of a pipe that holds `content` (up to 64 KB), as a shell's `<(...)` is one."""
    if not Path("/dev/fd").exists():
        pytest.skip("no paths of pipes on this system")
    ends: list[int] = []

    def pipe(content: bytes) -> Path:
        reader, writer = os.pipe()
        ends.append(reader)
        with open(writer, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(content)
        return Path(f"/dev/fd/{reader}")

    yield pipe
    for end in ends:
        os.close(end)


@pytest.fixture
def asr_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`asr_command(*arguments, stdin=bytes)`: the command line in a process of its own, output decoded as UTF-8."""

    def run(*arguments: object, stdin: bytes | None = None, **options: object) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "asr", *map(str, arguments)],
            input=stdin if stdin is not None else b"",
            capture_output=True,
            cwd=ROOT,
            timeout=120,
            check=False,
            **options,  # type: ignore[call-overload]
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run
