"""An acoustic model on an utterance that is still being spoken: blocks of samples -> log-probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from asr.model.acoustic import AcousticModel
from asr.model.blockwise import Blockwise, EncoderStream
from asr.types import ConfigError


class AcousticStream:
    """Log-probabilities of one utterance, each frame as soon as it is final; joined, they are those of `model(...)`.

        stream = AcousticStream(model)
        for block in blocks:  # (samples,) float32 at the model's rate
            use(stream.feed(block))
        use(stream.finish())

    Raises ConfigError for a model that needs whole utterances, because its encoder cannot stream or its features are
    normalized over the utterance. Memory and latency do not grow with the length.
    """

    def __init__(self, model: AcousticModel) -> None:
        begin = getattr(model.encoder, "stream", None)
        if begin is None:
            raise ConfigError(f"encoder {model.config.encoder} needs whole utterances: it cannot stream")
        self.model = model
        self.encoder: EncoderStream = begin(self._after_layer if model.config.self_conditioning else None)
        if model.feature_config.normalize == "utterance":
            raise ConfigError(
                "features that are normalized over the utterance cannot stream: train with features.normalize=none"
            )
        config, half = model.feature_config, model.features.fft_size // 2
        reach = (half + 1, half)  # 1 more for pre-emphasis
        nothing = model.output.weight.new_zeros(0)
        self.features = Blockwise(self._features, config.hop_samples, reach, nothing, config.n_mels)

    def _after_layer(self, number: int, x: Tensor, lengths: Tensor) -> Tensor:
        return self.model.conditioning(number, x, self.model.output)

    def _features(self, samples: Tensor) -> Tensor:
        return self.model.features(samples[None], torch.tensor([len(samples)]))[0][0]

    @torch.inference_mode()
    def feed(self, samples: Tensor) -> Tensor:
        """Samples (time,) -> log-probabilities (frames, vocab), possibly none, float32, natural logarithm."""
        features = self.features.feed(samples.to(self.model.output.weight.device))
        return self._log_probs(self.encoder.feed(features))

    @torch.inference_mode()
    def finish(self) -> Tensor:
        """The remaining log-probabilities (frames, vocab)."""
        states = [self.encoder.feed(self.features.finish()), self.encoder.finish()]
        return self._log_probs(torch.cat(states))

    def _log_probs(self, states: Tensor) -> Tensor:
        return torch.log_softmax(self.model.output(states).float(), dim=-1)
