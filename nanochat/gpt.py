"""The GPT: nanochat's architecture of November 2025, tensor for tensor.

Rotary positions, RMSNorm without weights, normalized queries and keys, squared-ReLU MLP, untied embeddings, no
biases, logits capped by a tanh, grouped-query attention if n_kv_head < n_head. Every addition to the original is a
field of GPTConfig that is off by default.
"""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from nanochat.functional import IGNORE_INDEX, Layout, cap, capped_cross_entropy

NORM_EPS = 1.1920929e-07  # torch.finfo(torch.float32).eps, in every dtype
ROTARY_BASE = 10000  # RoFormer, https://arxiv.org/abs/2104.09864
SCHEMA_FEATURES = 16  # features of a schema position in attention
GATE_CHANNELS = 32  # channels of a token that open its value gates


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a model. ValueError if the numbers do not fit together."""

    sequence_len: int = 512
    vocab_size: int = 8192
    n_layer: int = 8
    n_head: int = 6
    n_kv_head: int = 6  # key and value heads, each shared by n_head / n_kv_head query heads
    n_embd: int = 384
    dropout: float = 0.0  # in training, of the embedding and of the output of each sublayer
    previous_token: bool = False  # add the embedding of the previous token, with a weight for each channel
    n_states: int = 0  # number of schema positions; if not 0, each token comes with the one that it leads to
    state_attention: bool = False  # attention scores depend on schema positions too
    value_embedding: bool = False  # in every other layer, tokens bring a learned vector to the values of attention

    def __post_init__(self):
        for name in ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"GPTConfig: {name} must be a positive integer, not {value!r}")
        if not isinstance(self.n_states, int) or self.n_states < 0:
            raise ValueError(f"GPTConfig: n_states must be 0 or a positive integer, not {self.n_states!r}")
        if self.state_attention and not self.n_states:
            raise ValueError("GPTConfig: state_attention requires n_states > 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"GPTConfig: dropout must be at least 0 and below 1, not {self.dropout!r}")
        if self.n_embd % (2 * self.n_head):
            why = "because rotary embeddings rotate pairs of channels"
            rule = f"must be divisible by 2 * n_head = {2 * self.n_head}, {why}"
            raise ValueError(f"GPTConfig: n_embd {self.n_embd} {rule}")
        if self.n_head % self.n_kv_head:
            raise ValueError(f"GPTConfig: n_head {self.n_head} must be a multiple of n_kv_head {self.n_kv_head}")

    @classmethod
    def from_dict(cls, values: dict) -> "GPTConfig":
        """Return the config that a checkpoint's metadata describes. ValueError if it uses a field that is unknown here.

        An unknown field that is off is ignored: older versions had some.
        """
        known = {field.name for field in fields(cls)}
        if used := [name for name, value in values.items() if value and name not in known]:
            raise ValueError(f"the model uses {used[0]}, which is not supported: use the version that trained it")
        return cls(**{name: value for name, value in values.items() if name in known})

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

    def forward(self, x, cos, sin, layout: Layout, schema_features=None, token_values=None):
        q, k, v = self.project(x, cos, sin)
        if token_values is not None:
            values, gate_weights = token_values
            v = v + gates(x, gate_weights).to(v.dtype) * values.view_as(v).to(v.dtype)
        if schema_features is not None:
            q, k = append_schema_features(q, k, *schema_features)
        y = layout.attend(self.layer, q, k, v)  # (B, T, H, D)
        return self.c_proj(y.flatten(2))

    def project(self, x, cos, sin):
        """Return queries (B, T, H, D), keys (B, T, H_kv, D) and values (B, T, H_kv, D) of x (B, T, C)."""
        B, T, _ = x.shape
        q = self.c_q(x).view(B, T, self.n_head, self.head_dim)
        k = self.c_k(x).view(B, T, self.n_kv_head, self.head_dim)
        v = self.c_v(x).view(B, T, self.n_kv_head, self.head_dim)
        return rotate(q, cos, sin), rotate(k, cos, sin), v


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

    def forward(self, x, cos, sin, layout: Layout, schema_features=None, token_values=None):
        x = x + self.drop(self.attn(norm(x), cos, sin, layout, schema_features, token_values))
        return x + self.drop(self.mlp(norm(x)))

    def drop(self, x):
        return F.dropout(x, self.dropout) if self.training else x


class SchemaAttention(nn.Module):
    """Features of schema positions, whose products are added to attention scores.

    The score grows with the match between the position at which the query's next token is read and the positions
    before and after the key. Each head weighs each feature by itself, at first by 0.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_kv_head = config.n_kv_head
        for name in ("query", "key_before", "key_after"):
            setattr(self, name, nn.Parameter(torch.empty(config.n_states, SCHEMA_FEATURES)))
        self.weight = nn.Parameter(torch.empty(config.n_layer, config.n_head, SCHEMA_FEATURES))

    def init_weights(self):
        nn.init.normal_(self.query)
        self.key_before.copy_(self.query)  # a query first matches tokens that were read at the same schema position
        nn.init.normal_(self.key_after)
        nn.init.zeros_(self.weight)

    def forward(self, before, after):
        """Return a list with the features of queries (1, N, H, F) and keys (1, N, H_kv, F) of each layer, for the
        schema positions (1, N) before and after each token."""
        queries = F.embedding(after, self.query)[:, :, None]  # (1, N, 1, F)
        keys = F.embedding(before, self.key_before) + F.embedding(after, self.key_after)
        keys = keys[:, :, None].expand(-1, -1, self.n_kv_head, -1)
        return [(queries * weight, keys) for weight in self.weight]


class ValueEmbedding(nn.Module):
    """Vectors of tokens that are added to the values of attention in every other layer, the last one included.

    So a layer can pass on which token it attends to without storing that in the hidden vector. Gates, one for each
    head, depend on the first channels of the layer's input. Later versions of nanochat have such embeddings.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.layers = range((config.n_layer - 1) % 2, config.n_layer, 2)
        width, channels = config.n_kv_head * config.head_dim, min(GATE_CHANNELS, config.n_embd)
        self.tables = nn.ModuleList(nn.Embedding(config.vocab_size, width) for _ in self.layers)
        self.gates = nn.Parameter(torch.empty(len(self.layers), config.n_kv_head, channels))

    def init_weights(self):
        for table in self.tables:
            bound = math.sqrt(3 / table.embedding_dim)  # as large as the values of a random layer
            nn.init.uniform_(table.weight, -bound, bound)
        nn.init.zeros_(self.gates)  # all gates are 1

    def forward(self, idx):
        """Return for each layer (values (B, T, H_kv * D) of tokens idx (B, T), weights of the gates), or None."""
        found = dict(zip(self.layers, zip((table(idx) for table in self.tables), self.gates)))
        return [found.get(layer) for layer in range(self.layers.stop)]


class GPT(nn.Module):
    """A decoder over token ids. Set `gradient_checkpointing` to trade a second forward pass for memory."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        wte = nn.Embedding(config.vocab_size, config.n_embd)
        blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.transformer = nn.ModuleDict({"wte": wte, "h": blocks})
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.n_states:
            self.state_embedding = nn.Embedding(config.n_states, config.n_embd)
        if config.state_attention:
            self.state_attention = SchemaAttention(config)
        if config.value_embedding:
            self.value_embedding = ValueEmbedding(config)
        if config.previous_token:
            self.previous_weight = nn.Parameter(torch.empty(config.n_embd))
        cos, sin = rotary_tables(config.sequence_len, config.head_dim)
        self.register_buffer("cos", cos, persistent=False)  # (T_max, D / 2); not in the state dict
        self.register_buffer("sin", sin, persistent=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self):
        """Draw all weights. A model moved by `to_empty` from the meta device is complete after this call.

        The output matrices are zero, so the first logits are 0 and the first loss is ln(vocab_size).
        """
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
        if self.config.value_embedding:
            self.value_embedding.init_weights()
        if self.config.previous_token:
            nn.init.zeros_(self.previous_weight)
        nn.init.zeros_(self.lm_head.weight)
        for block in self.transformer.h:
            nn.init.zeros_(block.attn.c_proj.weight)
            nn.init.zeros_(block.mlp.c_proj.weight)
        cos, sin = rotary_tables(self.config.sequence_len, self.config.head_dim)
        self.cos.copy_(cos)
        self.sin.copy_(sin)

    def get_device(self) -> torch.device:
        return self.transformer.wte.weight.device

    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def estimate_flops(self) -> int:
        """Return the FLOPs of forward and backward for one token, counted as nanochat does.

        That is 6 for each weight in a matrix product, which excludes embedding tables, and 12 * n_layer * n_embd * T
        for attention over a full context (PaLM, appendix B, https://arxiv.org/abs/2204.02311). Schema features
        enlarge one of the two products of attention.
        """
        tables = [module.weight.numel() for module in self.modules() if isinstance(module, nn.Embedding)]
        if self.config.value_embedding:
            tables.append(self.value_embedding.gates.numel())
        width = 2 * self.config.n_embd
        if self.config.state_attention:
            tables += [parameter.numel() for parameter in self.state_attention.parameters()]
            width += self.config.n_head * SCHEMA_FEATURES
        matmul_parameters = self.num_parameters() - sum(tables)
        return 6 * (matmul_parameters + self.config.n_layer * width * self.config.sequence_len)

    def forward(self, idx, targets=None, layout: Layout | None = None, loss_reduction="mean"):
        """Return logits (B, T, V) in float32, or the cross-entropy in nats if there are targets (B, T).

        The reduction is the "mean" over the targets other than IGNORE_INDEX, their "sum", or "none": then the loss
        of each target (B, T). The layout describes the tokens, as in `hidden`.
        """
        x = self.hidden(idx, layout)
        if targets is None:
            return self.logits(x)
        if loss_reduction == "none":
            logits = self.logits(x).flatten(0, -2)
            each = F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none")
            return each.view_as(targets)
        loss = capped_cross_entropy(x.flatten(0, -2), self.lm_head.weight, targets.flatten())
        return loss / (targets != IGNORE_INDEX).sum() if loss_reduction == "mean" else loss

    def hidden(self, idx, layout: Layout | None = None):
        """Return the normalized output (B, T, C) of the last block for tokens idx (B, T).

        Without a layout each row is one document. ValueError if a document is longer than the context, or if the
        layout lacks the schema positions that the model needs.
        """
        layout = Layout.of_rows(idx) if layout is None else layout
        if self.config.n_states and layout.schema_positions is None:
            raise ValueError("this model takes schema positions as input: prepare its data with --states")
        if layout.max_seqlen > self.config.sequence_len:
            raise ValueError(f"{layout.max_seqlen} tokens do not fit the model's context of {self.config.sequence_len}")
        cos, sin = (table[layout.positions][:, None] for table in (self.cos, self.sin))  # (T, 1, D / 2)
        x = F.dropout(self.embed(idx, layout), self.config.dropout, self.training)  # (B, T, C)
        schema_features = [None] * self.config.n_layer
        if self.config.state_attention:
            schema_features = self.state_attention(layout.previous_schema_positions(), layout.schema_positions)
        token_values = self.value_embedding(idx) if self.config.value_embedding else [None] * self.config.n_layer
        for block, *inputs in zip(self.transformer.h, schema_features, token_values):
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint_block(block, x, cos, sin, layout, *inputs)
            else:
                x = block(x, cos, sin, layout, *inputs)
        return norm(x)

    def embed(self, idx, layout: Layout):
        """Return the normalized embeddings (B, T, C) of tokens idx (B, T)."""
        x = self.transformer.wte(idx)
        if self.config.previous_token:
            previous = self.transformer.wte(layout.previous_tokens(idx))
            x = x + self.previous_weight * previous.masked_fill((layout.positions == 0)[:, None], 0)
        if self.config.n_states:
            x = x + self.state_embedding(layout.schema_positions)
        return norm(x)

    def logits(self, x):
        """Return next-token logits (..., V) in float32 for hidden vectors x (..., C)."""
        return cap(self.lm_head(x))


def checkpoint_block(block, x, *arguments):
    """Return block(x, *arguments), to be computed again for the gradients.

    The arguments are in a closure: before torch 2.13, torch.compile recompiles for every set of document lengths if
    `checkpoint` receives the layout as an argument.
    """
    return checkpoint(lambda x: block(x, *arguments), x, use_reentrant=False)


def norm(x):
    """Apply RMSNorm without weights to the last dimension."""
    return F.rms_norm(x, (x.size(-1),), eps=NORM_EPS)


def gates(x, weights):
    """Return the gates of heads, from 0 to 2, (B, T, H, 1), for x (B, T, C) and weights (H, G) of the first G channels.

    Not a matrix product and no exponential function: their rounding may depend on the other tokens of the batch.
    """
    channels = x[..., None, : weights.size(-1)].float()  # (B, T, 1, G)
    return 1 + F.softsign((channels * weights.float()).sum(-1, keepdim=True))


def rotate(x, cos, sin):
    """Rotate channel pairs (i, i + D / 2) of queries or keys x (B, T, H, D) by the angles in cos and sin
    (T, 1, D / 2), and normalize the result."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    x1, x2 = x.chunk(2, dim=-1)
    return norm(torch.cat([x1 * cos + x2 * sin, x2 * cos - x1 * sin], dim=-1))


def append_schema_features(q, k, query_features, key_features):
    """Return queries (B, T, H, D + F) and keys (B, T, H_kv, D + F).

    Attention scales their products by 1 / sqrt(D + F). The queries are enlarged so that the part of q and k is scaled
    by 1 / sqrt(D), as without features.
    """
    scale = math.sqrt((q.size(-1) + SCHEMA_FEATURES) / q.size(-1))
    return (
        torch.cat([q * scale, query_features.to(q.dtype)], dim=-1),
        torch.cat([k, key_features.to(k.dtype)], dim=-1),
    )


def rotary_tables(length: int, head_dim: int):
    """Return cosines and sines (length, D / 2) of position * base^(-2i / D).

    They are rounded to bfloat16, because the original stores them so and its checkpoints expect it.
    """
    frequencies = 1.0 / ROTARY_BASE ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
    return angles.cos().bfloat16(), angles.sin().bfloat16()
