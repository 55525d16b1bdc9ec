"""The GPT: nanochat's architecture of November 2025, tensor for tensor.

Rotary positions, RMSNorm without weights, normalised queries and keys, squared-ReLU MLP, untied
embeddings, no biases, logits capped by a tanh, grouped-query attention where n_kv_head < n_head. What is
more than the original has is a field of GPTConfig that is off by default.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from nanochat.functional import IGNORE_INDEX, Documents, attend_documents, cap, capped_cross_entropy

NORM_EPS = 1.1920929e-07  # torch.finfo(torch.float32).eps, in every dtype
ROTARY_BASE = 10000  # RoFormer, https://arxiv.org/abs/2104.09864
STATE_FEATURES = 16  # of a state, in attention


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a model. ValueError where the numbers do not fit together."""

    sequence_len: int = 512
    vocab_size: int = 8192
    n_layer: int = 8
    n_head: int = 6
    n_kv_head: int = 6  # key and value heads, each shared by n_head / n_kv_head query heads
    n_embd: int = 384
    dropout: float = 0.0  # of the embedding and of what each sublayer adds, in training
    resid_scalars: bool = False  # each block scales the stream that comes in by a learned number
    x0_scalars: bool = False  # and adds the embedding to it, scaled likewise
    previous_token: bool = False  # the embedding of the token before is added, each channel weighed
    n_states: int = 0  # beside each token the model is told one of so many states that it leads to
    state_attention: bool = False  # and what it attends to depends on states, too

    def __post_init__(self):
        for name in ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"GPTConfig: {name} must be a positive integer, not {value!r}")
        if not isinstance(self.n_states, int) or self.n_states < 0:
            raise ValueError(f"GPTConfig: n_states must be 0 or a positive integer, not {self.n_states!r}")
        if self.state_attention and not self.n_states:
            raise ValueError("GPTConfig: state_attention wants n_states")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"GPTConfig: dropout must be from 0 up and below 1, not {self.dropout!r}")
        if self.n_embd % (2 * self.n_head):
            raise ValueError(
                f"GPTConfig: n_embd {self.n_embd} is no even multiple of n_head {self.n_head}; "
                "rotary embeddings turn pairs"
            )
        if self.n_head % self.n_kv_head:
            raise ValueError(f"GPTConfig: n_head {self.n_head} is no multiple of n_kv_head {self.n_kv_head}")

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head


class CausalSelfAttention(nn.Module):
    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.n_head, self.n_kv_head, self.head_dim = config.n_head, config.n_kv_head, config.head_dim
        C, D = config.n_embd, config.head_dim
        self.c_q = nn.Linear(C, self.n_head * D, bias=False)
        self.c_k = nn.Linear(C, self.n_kv_head * D, bias=False)
        self.c_v = nn.Linear(C, self.n_kv_head * D, bias=False)
        self.c_proj = nn.Linear(C, C, bias=False)

    def forward(self, x, cos, sin, kv_cache=None, documents=None, features=None):
        B, T, C = x.shape
        q = self.c_q(x).view(B, T, self.n_head, self.head_dim)  # (B, T, H, D)
        k = self.c_k(x).view(B, T, self.n_kv_head, self.head_dim)  # (B, T, H_kv, D)
        v = self.c_v(x).view(B, T, self.n_kv_head, self.head_dim)
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        if features is not None:
            q, k = add_features(q, k, *features)
        if kv_cache is not None:
            y = kv_cache.attend(self.layer, q[0], k[0], v[0])  # (N, H, D)
            return self.c_proj(y.to(v.dtype).reshape(B, T, C))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, H, T, D)
        if documents is not None:
            y = attend_documents(q.to(v.dtype), k.to(v.dtype), v, documents)  # autocast may normalise in float32
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.n_kv_head < self.n_head)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    def __init__(self, config: GPTConfig):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)

    def forward(self, x):
        return self.c_proj(F.relu(self.c_fc(x)).square())


class Block(nn.Module):
    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        self.attn = CausalSelfAttention(config, layer)
        self.mlp = MLP(config)
        self.dropout = config.dropout

    def forward(self, x, cos, sin, kv_cache=None, documents=None, features=None):
        x = x + self.drop(self.attn(norm(x), cos, sin, kv_cache, documents, features))
        return x + self.drop(self.mlp(norm(x)))

    def drop(self, x):
        return F.dropout(x, self.dropout, self.training)


class StateAttention(nn.Module):
    """Adds to each attention score how well two states go together: the one that the query's next token is read in,
    and those before and after the key. In each head each feature of a state weighs otherwise; at first nothing."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_kv_head = config.n_kv_head
        for name in ("query", "key_before", "key_after"):
            setattr(self, name, nn.Parameter(torch.empty(config.n_states, STATE_FEATURES)))
        self.weight = nn.Parameter(torch.empty(config.n_layer, config.n_head, STATE_FEATURES))

    def init_weights(self):
        nn.init.normal_(self.query)
        self.key_before.copy_(self.query)  # so that a query looks for what was read in the same state
        nn.init.normal_(self.key_after)
        nn.init.zeros_(self.weight)

    def forward(self, before, after):
        """For states (1, N) before and after each token, of each layer the features of queries (1, N, H, F) and of
        keys (1, N, H_kv, F)."""
        queries = F.embedding(after, self.query)[:, :, None]  # (1, N, 1, F)
        keys = F.embedding(before, self.key_before) + F.embedding(after, self.key_after)
        keys = keys[:, :, None].expand(-1, -1, self.n_kv_head, -1)
        return [(queries * weight, keys) for weight in self.weight]


class GPT(nn.Module):
    """A decoder over token ids. Set `gradient_checkpointing` to trade a second forward for memory."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.n_embd),
                "h": nn.ModuleList(Block(config, layer) for layer in range(config.n_layer)),
            }
        )
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.n_states:
            self.state_embedding = nn.Embedding(config.n_states, config.n_embd)
        if config.state_attention:
            self.state_attention = StateAttention(config)
        if config.previous_token:
            self.previous_weight = nn.Parameter(torch.empty(config.n_embd))
        if config.resid_scalars:
            self.resid_scalars = nn.Parameter(torch.empty(config.n_layer))
        if config.x0_scalars:
            self.x0_scalars = nn.Parameter(torch.empty(config.n_layer))
        cos, sin = rotary_tables(config.sequence_len, config.head_dim)
        self.register_buffer("cos", cos, persistent=False)  # (T_max, D / 2); not in the state dict
        self.register_buffer("sin", sin, persistent=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self):
        """Draw all weights anew. Zero output matrices make the first logits 0, the first loss ln(vocab_size).
        A model moved by `to_empty` from the meta device is made whole by this."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                fan_out, fan_in = module.weight.shape
                std = min(1.0, math.sqrt(fan_out / fan_in)) / math.sqrt(fan_in)
                nn.init.normal_(module.weight, mean=0.0, std=std)
        nn.init.normal_(self.transformer.wte.weight, mean=0.0, std=1.0)
        if self.config.n_states:
            nn.init.normal_(self.state_embedding.weight, mean=0.0, std=1.0)
        if self.config.state_attention:
            self.state_attention.init_weights()
        if self.config.previous_token:
            nn.init.zeros_(self.previous_weight)
        nn.init.zeros_(self.lm_head.weight)
        for block in self.transformer.h:
            nn.init.zeros_(block.attn.c_proj.weight)
            nn.init.zeros_(block.mlp.c_proj.weight)
        if self.config.resid_scalars:
            nn.init.ones_(self.resid_scalars)
        if self.config.x0_scalars:
            nn.init.zeros_(self.x0_scalars)
        cos, sin = rotary_tables(self.config.sequence_len, self.config.head_dim)
        self.cos.copy_(cos)
        self.sin.copy_(sin)

    def get_device(self) -> torch.device:
        return self.transformer.wte.weight.device

    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def estimate_flops(self) -> int:
        """FLOPs of forward and backward for one token: 6 for each weight in a matrix product, which looking up
        embeddings is not, and 12 * n_layer * n_embd * T for attention over a whole context
        (PaLM, appendix B, https://arxiv.org/abs/2204.02311, as nanochat counts them); features of states are in
        one of its two products."""
        tables = [module.weight.numel() for module in self.modules() if isinstance(module, nn.Embedding)]
        width = 2 * self.config.n_embd
        if self.config.state_attention:
            tables += [parameter.numel() for parameter in self.state_attention.parameters()]
            width += self.config.n_head * STATE_FEATURES
        matmul_parameters = self.num_parameters() - sum(tables)
        return 6 * (matmul_parameters + self.config.n_layer * width * self.config.sequence_len)

    def forward(self, idx, targets=None, kv_cache=None, loss_reduction="mean", documents=None):
        """Logits (B, T, V) in float32; or, given targets (B, T), the cross-entropy in nats: its "mean" over
        the targets other than IGNORE_INDEX, its "sum", or with "none" that of each target (B, T). With
        documents the batch is packed: one row (1, N), in which each document attends to itself alone."""
        x = self.hidden(idx, kv_cache, documents)
        if targets is None:
            return self.logits(x)
        if loss_reduction == "none":
            each = F.cross_entropy(
                self.logits(x).flatten(0, -2), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
            )
            return each.view_as(targets)
        loss = capped_cross_entropy(x.flatten(0, -2), self.lm_head.weight, targets.flatten())
        return loss / (targets != IGNORE_INDEX).sum() if loss_reduction == "mean" else loss

    def hidden(self, idx, kv_cache=None, documents: Documents | None = None):
        """The normalised output (B, T, C) of the last block for tokens idx (B, T). With a cache there is one line
        (1, N) of new tokens: the cache says whose they are, where they stand, what they attend to, and with n_states
        where they lead, as documents say of theirs."""
        line = documents or kv_cache
        if self.config.n_states and (line is None or line.states is None):
            raise ValueError("this model wants the state that each token leads to: prepare its data with --states")
        T = line.longest if line else idx.size(1)
        if T > self.config.sequence_len:
            raise ValueError(f"{T} tokens do not fit the model's context of {self.config.sequence_len}")
        positions = line.positions if line else torch.arange(T, device=idx.device)  # (N,) or (T,)
        cos, sin = self.cos[positions], self.sin[positions]  # (T, D / 2)
        x0 = self.transformer.wte(idx)  # (B, T, C)
        if self.config.previous_token:
            before = self.transformer.wte(kv_cache.tokens_before(idx) if kv_cache else idx.roll(1, 1))
            x0 = x0 + self.previous_weight * before.masked_fill((positions == 0)[:, None], 0)
        if self.config.n_states:
            x0 = x0 + self.state_embedding(line.states)
        x0 = norm(x0)
        x = F.dropout(x0, self.config.dropout, self.training)
        features = [None] * self.config.n_layer
        if self.config.state_attention:
            features = self.state_attention(line.states_before, line.states)
        for i, block in enumerate(self.transformer.h):
            if self.config.resid_scalars:
                x = x * self.resid_scalars[i]
            if self.config.x0_scalars:
                x = x + x0 * self.x0_scalars[i]
            others = cos, sin, kv_cache, documents, features[i]
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint_block(block, x, *others)
            else:
                x = block(x, *others)
        return norm(x)

    def logits(self, x):
        """Next-token logits (..., V) in float32 for hidden states x (..., C)."""
        return cap(self.lm_head(x))


def checkpoint_block(block, x, *others):
    """Give block(x, *others), and compute it once more for the gradients. The others are in a closure, because before
    torch 2.13 torch.compile makes new code for every set of lengths if checkpoint gets documents as an argument."""
    return checkpoint(lambda x: block(x, *others), x, use_reentrant=False)


def norm(x):
    """RMSNorm without weights over the last dimension."""
    return F.rms_norm(x, (x.size(-1),), eps=NORM_EPS)


def rotate(x, cos, sin):
    """Turn channel pairs (i, i + D/2) of x (B, T, H, D) by the angles in cos and sin (..., T, D / 2)."""
    cos, sin = cos.unsqueeze(-2).to(x.dtype), sin.unsqueeze(-2).to(x.dtype)  # (..., T, 1, D / 2)
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat([x1 * cos + x2 * sin, x2 * cos - x1 * sin], dim=-1)


def add_features(q, k, query_features, key_features):
    """Queries (B, T, H, D + F) and keys (B, T, H_kv, D + F), whose products, scaled by 1 / sqrt(D + F) as attention
    does, are those of q and k scaled by 1 / sqrt(D) and those of the features scaled by 1 / sqrt(D + F)."""
    scale = math.sqrt((q.size(-1) + STATE_FEATURES) / q.size(-1))
    return (
        torch.cat([q * scale, query_features.to(q.dtype)], dim=-1),
        torch.cat([k, key_features.to(k.dtype)], dim=-1),
    )


def rotary_tables(length: int, head_dim: int):
    """Cosines and sines (length, D / 2) of position * base^(-2i / D), rounded to bfloat16: the original
    keeps them so, and its checkpoints expect them."""
    frequencies = 1.0 / ROTARY_BASE ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
    return angles.cos().bfloat16(), angles.sin().bfloat16()
