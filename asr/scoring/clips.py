"""The audio of utterances for the report: a player's data, and how far speech stands above the noise."""

from __future__ import annotations

import base64
import io

import numpy as np

from asr.audio.read import read
from asr.scoring.texts import Line

FRAME_SECONDS = 0.02
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def read_clip(line: Line, rate: int | None = None) -> tuple[np.ndarray, int]:
    """Samples (time,) float32 and their rate of the utterance's stretch of its file. Raises AudioError."""
    audio = read(
        line.audio_filepath,
        rate=rate,
        channel="mix" if line.channel is None else line.channel,
        offset=line.offset,
        duration=line.duration if line.segment else None,
    )
    return audio.samples, audio.rate


def data_uri(samples: np.ndarray, rate: int) -> str:
    """The recording inside an URI that every browser plays: MP3 where libsndfile writes it, 16-bit WAV otherwise."""
    import soundfile

    buffer = io.BytesIO()
    clipped = np.clip(samples, -1.0, 1.0)
    mp3 = "MP3" in soundfile.available_formats() and rate in MP3_RATES
    if mp3:
        soundfile.write(buffer, clipped, rate, format="MP3", subtype="MPEG_LAYER_III")
    else:
        soundfile.write(buffer, clipped, rate, format="WAV", subtype="PCM_16")
    kind = "audio/mpeg" if mp3 else "audio/wav"
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def estimated_snr(samples: np.ndarray, rate: int) -> float | None:
    """Decibels from the quietest tenth of the frames to the mean of the loud half; None below half a second.

    A rough figure to sort utterances by: it takes the pauses for noise, and clean pauses of digital silence for 60 dB.
    """
    length = round(FRAME_SECONDS * rate)
    frames = len(samples) // length
    if frames * FRAME_SECONDS < 0.5:
        return None
    energy = (samples[: frames * length].reshape(frames, length).astype(np.float64) ** 2).mean(axis=1)
    noise = float(np.quantile(energy, 0.1))
    loud = float(energy[energy >= np.median(energy)].mean())
    if loud <= 0.0:
        return None
    speech = max(loud - noise, 1e-3 * loud)
    return float(min(10.0 * np.log10(speech / max(noise, 1e-6 * speech)), 60.0))
