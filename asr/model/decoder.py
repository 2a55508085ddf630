"""The attention decoder: encoder states and the tokens so far -> probabilities of the next token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.model.config import DecoderConfig
from asr.model.padding import valid_frames

EDGE = 0  # stands for the start before the first token and the end after the last; no token has CTC's blank index


@dataclass(frozen=True)
class Memory:
    """What a decoder attends to: states (batch, frames, width), keys (batch, frames, size), and which are valid.

    Any number of rows may read one utterance (batch 1).
    """

    states: Tensor
    keys: Tensor
    valid: Tensor

    def products(self, queries: Tensor) -> Tensor:
        """(rows, size) -> the dot products of each row with its keys (rows, frames)."""
        return queries @ self.keys[0].T if len(self.keys) == 1 else (self.keys @ queries[:, :, None])[:, :, 0]

    def mix(self, weights: Tensor) -> Tensor:
        """(rows, frames) -> the weighted sums of the states (rows, width)."""
        weights = weights.to(self.states.dtype)
        return weights @ self.states[0] if len(self.states) == 1 else (weights[:, None] @ self.states)[:, 0]


@dataclass(frozen=True)
class DecoderState:
    """The state of a decoder: the cells' states, a tuple of (rows, hidden size) per layer; the `context` (rows, width)
    and attention `weights` (rows, frames) of the last step; `covered` (rows, frames), the sum of all weights so far.
    """

    cells: tuple[tuple[Tensor, ...], ...]
    context: Tensor
    weights: Tensor
    covered: Tensor

    def rows(self, index: Tensor) -> DecoderState:
        """The rows at these indices (rows,)."""
        cells = tuple(tuple(part[index] for part in layer) for layer in self.cells)
        return DecoderState(cells, self.context[index], self.weights[index], self.covered[index])


class AttentionDecoder(nn.Module):
    """An LSTM or GRU over the tokens so far, which attends to the encoder's states (Chan et al., 2016).

    In each step, the cells read the embedding of the previous token and the previous context. The state q of the top
    cell queries the next context, and q and the context predict the next token. The score of a state h_j is
    w * tanh(W q + V h_j + U f_j), where f are the convolved weights of the previous step (location-aware, Chorowski et
    al., 2015), or (W q) * (V h_j) / sqrt(size) (dot product). Padding gets no weight.

    Index 0 of the vocabulary, CTC's blank, stands for the start as an input and for the end as an output.
    """

    def __init__(self, config: DecoderConfig, states_size: int, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        cell = nn.LSTMCell if config.cell == "lstm" else nn.GRUCell
        sizes = [config.embedding_size + states_size] + [config.hidden_size] * (config.layers - 1)
        self.embedding = nn.Embedding(vocab_size, config.embedding_size)
        self.cells = nn.ModuleList(cell(size, config.hidden_size) for size in sizes)
        self.query = nn.Linear(config.hidden_size, config.attention_size, bias=False)
        self.key = nn.Linear(states_size, config.attention_size)
        if config.attention == "location":
            channels, width = config.location_channels, config.location_width
            self.location = nn.Conv1d(1, channels, width, padding=width // 2, bias=False)
            self.located = nn.Linear(channels, config.attention_size, bias=False)
            self.energy = nn.Linear(config.attention_size, 1, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_size + states_size, vocab_size)

    def start(self, states: Tensor, lengths: Tensor) -> tuple[Memory, DecoderState]:
        """Encoder states (batch, frames, width) and lengths (batch,) -> memory and initial state for `step`."""
        valid = valid_frames(lengths, states.size(1))
        memory = Memory(states, self.key(states), valid)
        parts = 2 if self.config.cell == "lstm" else 1
        zeros = states.new_zeros(len(states), self.config.hidden_size)
        weights = valid.to(states.dtype) / lengths.clamp(min=1)[:, None].to(states.dtype)
        cells = tuple((zeros,) * parts for _ in self.cells)
        return memory, DecoderState(cells, torch.zeros_like(states[:, 0]), weights, torch.zeros_like(weights))

    def step(self, tokens: Tensor, state: DecoderState, memory: Memory) -> tuple[Tensor, DecoderState]:
        """The previous tokens (rows,), 0 at the start -> log-probabilities (rows, vocab) of the next ones, float32,
        natural logarithm, in column 0 of the end; and the next state.
        """
        x = torch.cat([self.dropout(self.embedding(tokens)), state.context], dim=-1)
        cells: list[tuple[Tensor, ...]] = []
        for cell, before in zip(self.cells, state.cells, strict=True):
            after = cell(x, before) if len(before) == 2 else (cell(x, before[0]),)
            cells.append(after)
            x = after[0]
        weights = self._attend(x, state.weights, memory)
        context = memory.mix(weights)
        logits = self.output(self.dropout(torch.cat([x, context], dim=-1)))
        with torch.autocast(logits.device.type, enabled=False):
            log_probs = torch.log_softmax(logits.float(), dim=-1)
        return log_probs, DecoderState(tuple(cells), context, weights, state.covered + weights)

    def _attend(self, query: Tensor, before: Tensor, memory: Memory) -> Tensor:
        """Queries (rows, hidden size) and previous weights (rows, frames) -> weights (rows, frames)."""
        query = self.query(query)
        if self.config.attention == "dot":
            scores = memory.products(query) / query.size(1) ** 0.5
        else:
            located = self.located(self.location(before[:, None]).transpose(1, 2))
            scores = self.energy(torch.tanh(memory.keys + query[:, None] + located))[:, :, 0]
        # The smallest number instead of -inf: rows without frames, which fill up a batch, stay finite.
        scores = scores.float().masked_fill(~memory.valid, torch.finfo(torch.float32).min)
        return torch.softmax(scores, dim=-1)

    def forward(self, states: Tensor, lengths: Tensor, tokens: Tensor, sampling: float = 0.0) -> Tensor:
        """Log-probabilities (batch, steps, vocab) float32 of what follows the start and each of `tokens`.

        states: (batch, frames, width) of the encoder, lengths: (batch,); tokens: (batch, steps - 1), padded with
        anything in the vocabulary. A row depends neither on the other rows nor on padding. The states of one utterance
        (batch 1) may be read with several rows of tokens. With probability `sampling`, a token is replaced by one
        drawn from the decoder's own output (scheduled sampling, Bengio et al., 2015).
        """
        memory, state = self.start(states, lengths)
        if len(states) == 1 < len(tokens):
            state = state.rows(torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device))
        steps = functional.pad(tokens, (1, 0), value=EDGE).unbind(1)
        outputs: list[Tensor] = []
        for token in steps:
            if sampling > 0.0 and outputs:
                drawn = torch.multinomial(outputs[-1].detach().exp(), 1)[:, 0]
                token = torch.where(torch.rand(len(token), device=token.device) < sampling, drawn, token)
            log_probs, state = self.step(token, state, memory)
            outputs.append(log_probs)
        return torch.stack(outputs, dim=1)

    def log_likelihoods(self, states: Tensor, lengths: Tensor, tokens: Tensor, counts: Tensor) -> Tensor:
        """ln P (batch,) of the first `counts` (batch,) of each row of `tokens` (batch, longest), and of the end."""
        targets = with_end(tokens, counts)
        log_probs = self(states, lengths, tokens).gather(2, targets.clamp(min=0)[:, :, None])[:, :, 0]
        return log_probs.masked_fill(targets < 0, 0.0).sum(dim=1)

    @torch.no_grad()
    def greedy(self, states: Tensor, lengths: Tensor) -> list[list[int]]:
        """The tokens of each row by greedy decoding: at most as many as the row has frames."""
        memory, state = self.start(states, lengths)
        tokens = torch.full((len(states),), EDGE, device=states.device)
        running = lengths > 0
        decoded: list[Tensor] = []
        for count in range(1, states.size(1) + 1):
            log_probs, state = self.step(tokens, state, memory)
            tokens = torch.where(running, log_probs.argmax(dim=-1), EDGE)
            decoded.append(tokens)
            running = running & (tokens != EDGE) & (lengths > count)
            if not running.any():
                break
        rows = torch.stack(decoded, dim=1).tolist() if decoded else [[] for _ in states]
        return [[token for token in row if token != EDGE] for row in rows]


def with_end(tokens: Tensor, counts: Tensor, padding: int = -1) -> Tensor:
    """The first `counts` (batch,) of each row of tokens (batch, longest), the end, padding: (batch, longest + 1)."""
    place = torch.arange(tokens.size(1) + 1, device=tokens.device)[None, :]
    ends = torch.where(place == counts[:, None], EDGE, padding)
    return torch.where(place < counts[:, None], functional.pad(tokens, (0, 1)), ends)
