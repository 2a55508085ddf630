"""The LightningModule: acoustic model, CTC loss, and a dev set that is decoded and scored as a test set would be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from asr.audio.augment import spec_augment
from asr.config import to_dict
from asr.corpus.manifest import Manifest
from asr.decoding.greedy import GreedyDecoder
from asr.model.acoustic import AcousticModel
from asr.scoring.edits import score
from asr.text.normalize import normalize
from asr.text.tokenizer import Tokenizer
from asr.training.config import TrainConfig
from asr.training.dataset import Batch, UnreadableCount
from asr.training.objectives import blank_share, ctc_loss
from asr.training.schedule import Plateau, lr_factor


class CTCModule(pl.LightningModule):
    """Trains `AcousticModel` with CTC.

    Every random number of a step (dropout, SpecAugment) is drawn from a seed made of (run seed, epoch, batch, rank),
    so a resumed run draws what the unbroken one would have drawn.
    """

    def __init__(self, config: TrainConfig, tokenizer: Tokenizer, train: Manifest, dev: Manifest) -> None:
        super().__init__()
        self.run_config = config
        self.tokenizer = tokenizer
        self.dev_manifest = dev
        self.train_utterances = len(train)
        self.unreadable = UnreadableCount(len(train))
        self.model = AcousticModel(config.model, config.features, tokenizer.vocab_size)
        self.model.recurrent.initialize()
        self.plateau = Plateau(config.optimizer.plateau_patience)
        self.dev_references: list[str] = []
        self.dev_hypotheses: list[str] = []
        self.dev_loss = torch.zeros(2, dtype=torch.float64)
        self.dev_example: tuple[str, str] = ("", "")
        self.decoder = GreedyDecoder(tokenizer, self.model.frame_seconds)
        self._augments = config.augment.time_masks > 0 or config.augment.frequency_masks > 0

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.unreadable.add(batch)
        if not len(batch):  # nothing could be read; a step without a loss would leave the other ranks waiting
            return torch.stack([p.sum() for p in self.model.parameters()]).sum() * 0.0
        self._seed_step(batch_idx)
        seeds = [(self.run_config.seed, batch.epoch, index) for index in batch.indices]

        def augment(features: Tensor, lengths: Tensor) -> Tensor:
            return spec_augment(features, lengths, self.run_config.augment, seeds)

        log_probs, lengths = self.model(batch.waveforms, batch.lengths, augment if self._augments else None)
        result = ctc_loss(log_probs, lengths, batch.tokens, batch.token_lengths)
        size = len(batch.indices)
        self.log("train/loss", result.loss.detach(), on_step=True, on_epoch=True, batch_size=size)
        self.log("train/infeasible", result.infeasible.float(), on_step=False, on_epoch=True, reduce_fx="sum")
        with torch.no_grad():
            self.log(
                "train/blank_share",
                blank_share(log_probs, lengths),
                on_step=False,
                on_epoch=True,
                batch_size=size,
            )
        return result.loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        limit = self.run_config.optimizer.gradient_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.log("train/gradient_norm", norm, on_step=True, on_epoch=False)

    def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        self.log("train/lr", optimizer.param_groups[0]["lr"], on_step=True, on_epoch=False)

    def on_fit_start(self) -> None:
        self.unreadable = UnreadableCount(self.train_utterances // self.trainer.world_size)

    def on_validation_epoch_start(self) -> None:
        self.dev_references, self.dev_hypotheses = [], []
        self.dev_loss = torch.zeros(2, dtype=torch.float64)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        # An utterance that could not be read counts with an empty hypothesis: nothing is dropped.
        for index, _ in batch.failures:
            self.dev_references.append(self.reference(index))
            self.dev_hypotheses.append("")
        if not len(batch):
            return
        log_probs, lengths = self.model(batch.waveforms, batch.lengths)
        result = ctc_loss(log_probs, lengths, batch.tokens, batch.token_lengths)
        self.dev_loss += torch.stack([result.total, result.tokens]).double().cpu()
        for index, emission, frames in zip(batch.indices, log_probs.cpu(), lengths.tolist(), strict=True):
            self.dev_references.append(self.reference(index))
            self.dev_hypotheses.append(self.tokenizer.decode(self.decoder.decode_ids(emission[:frames])[0]))

    def on_validation_epoch_end(self) -> None:
        words = score(self.dev_references, self.dev_hypotheses, "word").counts
        chars = score(self.dev_references, self.dev_hypotheses, "char").counts
        counts = [
            words.errors,
            words.reference_length,
            chars.errors,
            chars.reference_length,
            len(self.dev_references),
        ]
        # Integer sums over all ranks, divided once: the mean of the ranks' rates would be no error rate.
        totals = torch.cat([torch.tensor(counts, dtype=torch.float64), self.dev_loss]).to(self.device)
        totals = self.trainer.strategy.reduce(totals, reduce_op="sum")
        word_errors, word_count, char_errors, char_count, utterances, loss, tokens = totals.tolist()
        wer = word_errors / max(word_count, 1)
        values = {
            "dev/wer": wer,
            "dev/cer": char_errors / max(char_count, 1),
            "dev/loss": loss / max(tokens, 1),
            "dev/utterances": utterances,
        }
        self.log_dict(values, on_step=False, on_epoch=True)
        if not self.trainer.sanity_checking:
            self.plateau.update(wer)
        self._show_example()

    def configure_optimizers(self) -> Any:
        settings = self.run_config.optimizer
        # Weight decay on matrices only: shrinking biases and norms toward zero has no justification.
        matrices = [p for p in self.model.parameters() if p.requires_grad and p.dim() >= 2]
        vectors = [p for p in self.model.parameters() if p.requires_grad and p.dim() < 2]
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps)
        total_steps = int(min(self.trainer.estimated_stepping_batches, 2**31))

        def factor(step: int) -> float:
            return lr_factor(step, total_steps, settings, self.plateau.drops)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["plateau"] = self.plateau.state_dict()
        checkpoint["config"] = to_dict(self.run_config)
        checkpoint["tokenizer"] = self.tokenizer.to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.plateau.load_state_dict(checkpoint["plateau"])

    def reference(self, index: int) -> str:
        """The normalized transcript of a dev utterance."""
        return normalize(self.dev_manifest[index].text, self.run_config.text.normalizer)

    def _seed_step(self, batch_idx: int) -> None:
        key = (self.run_config.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def _show_example(self) -> None:
        """Keep one decoded dev utterance per validation, another one each time, and log it as text."""
        if not self.dev_references:
            return
        index = (self.current_epoch * 7919) % len(self.dev_references)
        self.dev_example = (self.dev_references[index], self.dev_hypotheses[index])
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger):
                text = f"reference: {self.dev_example[0]}  \nhypothesis: {self.dev_example[1]}"
                logger.experiment.add_text("dev/example", text, self.global_step)
