"""Steps over several processes and accumulated batches, and processes that average their weights periodically."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from asr.training.callbacks import MovingAverage

_UNIT = 1024.0  # tokens; keeps the weights of batches near 1, and float16 gradients in range


class GlobalBatch:
    """Makes the gradient of a step that of one large batch, however it was split over processes and accumulation.

    A loss is a mean over the target tokens of its batch. DDP averages over processes, and Lightning over accumulated
    batches (even if the last step of an epoch has fewer), but a mean of means is not the mean over all tokens.
    So each batch is weighted by its tokens, and before the step the sum is divided by the tokens of all batches, for
    which two numbers are reduced over the network. A step on one batch of one process is left unchanged.

    apart: each process takes its own steps (`PeriodicAverage`).
    """

    def __init__(self, apart: bool) -> None:
        self.apart = apart
        self.processes = self.accumulated = 1
        self.seen = 0  # tokens of this process since the last `PeriodicAverage`
        self._tokens, self._batch = 0, 0
        self._total: Tensor | None = None

    def begin(self, trainer: pl.Trainer) -> None:
        """Set the number of batches in a step, which is 1 until then."""
        self.processes, self.accumulated = trainer.world_size, trainer.accumulate_grad_batches

    def add(self, loss: Tensor, tokens: int) -> None:
        """Count a batch of this process by its mean loss per token."""
        self._batch = tokens
        self._tokens += tokens
        self.seen += tokens
        total = loss.detach().float() * tokens
        self._total = total if self._total is None else self._total + total

    def weighted(self, loss: Tensor) -> Tensor:
        """The loss of the last batch as it is to be differentiated."""
        return loss if self._batches == 1 else loss * (self._batch / _UNIT)

    def finish(self, parameters: Iterable[nn.Parameter]) -> Tensor | None:
        """Scale the gradients before a step. Returns the loss of the whole step, None if nothing could be read."""
        total, tokens = self._total, self._tokens
        self._total, self._tokens = None, 0
        if self._batches == 1:
            return None if total is None else total / tokens
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        sums = gradients[0].new_zeros(2, dtype=torch.float32)
        if total is not None:
            sums[0] = total
        sums[1].fill_(tokens)
        if self.processes > 1 and not self.apart:
            distributed.all_reduce(sums)
        tokens_of_all = sums[1].clamp(min=1)
        torch._foreach_mul_(gradients, _UNIT * self._batches / tokens_of_all)
        return sums[0] / tokens_of_all

    @property
    def _batches(self) -> int:
        """The number of batches that Lightning and DDP average over in a step."""
        return self.accumulated * (1 if self.apart else self.processes)


class PeriodicAverage(Callback):
    """Local SGD: each process takes `every` steps on its own, then all average their states.

    The mean is weighted by the target tokens of each process since the last average (McMahan et al., 2017), so that
    plain SGD with one step each is the same as DDP. It covers the parameters (Stich, 2019, "Local SGD converges fast
    and communicates little"), the statistics of batch norm and the moments of the optimizer (Yu et al., 2019, "On the
    linear speedup analysis of communication efficient momentum SGD"), so that one checkpoint is the state of all
    processes. It also covers the moving average of the weights, which is linear in them. States are also averaged
    before validations and at the end.
    """

    def __init__(self, every: int, batch: GlobalBatch, moving_average: MovingAverage | None) -> None:
        self.every, self.batch, self.moving_average = every, batch, moving_average
        self._averaged_at = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._averaged_at = trainer.global_step
        if isinstance(trainer.strategy.model, DistributedDataParallel):
            trainer.strategy.model.require_backward_grad_sync = False  # as in no_sync()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not (batch_idx + 1) % (self.every * trainer.accumulate_grad_batches) or trainer.is_last_batch:
            self._average(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._average(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._average(trainer, pl_module)

    def _average(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == self._averaged_at or trainer.world_size == 1:
            return
        average(learned(pl_module, trainer.optimizers[0].state), self.batch.seen)
        if self.moving_average:
            average(learned(self.moving_average.module, {}), self.batch.seen)
        self.batch.seen, self._averaged_at = 0, trainer.global_step


def learned(module: nn.Module, moments: Mapping[Tensor, dict[str, Any]]) -> list[list[Tensor]]:
    """The parameters and statistics of a module and the moments of its optimizer, as a list of tensors per kind."""
    parameters = {name for name, _ in module.named_parameters()}
    saved = {name: tensor for name, tensor in module.state_dict(keep_vars=True).items() if tensor.is_floating_point()}
    kinds = {"parameters": [tensor for name, tensor in saved.items() if name in parameters]}
    kinds["statistics"] = [tensor for name, tensor in saved.items() if name not in parameters]
    for parameter in kinds["parameters"]:
        for name, value in moments.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                kinds.setdefault(name, []).append(value)
    return [tensors for tensors in kinds.values() if tensors]


@torch.no_grad()
def average(kinds: Sequence[Sequence[Tensor]], weight: float) -> None:
    """Replace tensors by their mean over all processes, weighted by `weight` (equally if all are 0)."""
    device = kinds[0][0].device
    shares = torch.tensor([weight, 1.0], dtype=torch.float64, device=device)
    distributed.all_reduce(shares)
    share = weight / shares[0] if shares[0] else 1 / shares[1]
    for tensors in kinds:
        flat = torch.cat([tensor.flatten() for tensor in tensors]) * share.to(tensors[0].dtype)
        distributed.all_reduce(flat)
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))


def lost_process(error: Exception) -> bool:
    """Whether an error means that another process of the run cannot be reached."""
    if not distributed.is_available():
        return False
    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
