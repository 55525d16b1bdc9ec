"""The whole GPT, with all of its inputs, as a model of Hugging Face transformers.

The architecture nanochat of transformers lacks the inputs that GPTConfig adds. So this file travels with exported
models that use them: AutoModelForCausalLM loads it with `trust_remote_code=True`. It imports only what is installed,
and nothing relative to itself.
"""

import inspect
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

try:
    import tct_github_workflow as tct
    from nanochat.functional import Layout
    from nanochat.gpt import GPT, GPTConfig, rotary_tables
    from tct.symbols import PAD
except ImportError as error:  # transformers would name packages that are not ours
    raise ImportError(f"install nanochat-tct from its repository: the model is made of its code ({error})") from None

# What transformers calls a cache: the name has changed.
PARAMETERS = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
CACHE = "cache" if "cache" in PARAMETERS else "past_key_values"


@dataclass(frozen=True, eq=False, kw_only=True)
class CachedRows(Layout):
    """The layout of the last T tokens of B rows, side by side in one line (1, B * T). Those before are cached."""

    tokens_before: torch.Tensor  # (1, B * T)
    schema_positions_before: torch.Tensor  # (1, B * T)
    mask: torch.Tensor  # (B, 1, T, T_all) bool, which tokens of its row a token attends to
    cache: object  # of transformers, or None

    def previous_tokens(self, idx):
        return self.tokens_before

    def previous_schema_positions(self):
        return self.schema_positions_before

    def attend(self, layer: int, q, k, v):
        q, k, v = (x[0].unflatten(0, (len(self.mask), -1)).transpose(1, 2) for x in (q, k, v))  # (B, H, T, D)
        if self.cache is not None:
            k, v = self.cache.update(k, v, layer)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, enable_gqa=k.size(1) < q.size(1))
        return y.transpose(1, 2).flatten(0, 1)[None]  # (1, B * T, H, D)


class WorkflowGPTConfig(PreTrainedConfig):
    """The config of the architecture nanochat under another name, with the metadata of the checkpoint."""

    model_type = "nanochat_tct"


class WorkflowGPT(PreTrainedModel, GenerationMixin):
    """A GPT over the tokens of workflows. Rows begin with padding, if any, and the position token, which are both 0."""

    config_class = WorkflowGPTConfig

    def __init__(self, config: WorkflowGPTConfig):
        super().__init__(config)
        self.gpt = GPT(GPTConfig.from_dict(config.nanochat_tct["model_config"]))
        self._matchers = {}  # of the rows of the last call, by their tokens
        self.post_init()

    def _init_weights(self, module):
        """Compute the rotary tables. Everything else is in the file."""
        if module is self.gpt:
            cos, sin = rotary_tables(module.config.sequence_len, module.config.head_dim)
            module.cos.copy_(cos)
            module.sin.copy_(sin)

    def get_input_embeddings(self):
        return self.gpt.transformer.wte

    def get_output_embeddings(self):
        return self.gpt.lm_head

    def prepare_inputs_for_generation(self, input_ids, *args, **kwargs):
        """Return the arguments of `forward`, with all tokens of the rows, cached or not."""
        return {**super().prepare_inputs_for_generation(input_ids, *args, **kwargs), "rows": input_ids}

    def forward(
        self, input_ids, attention_mask=None, rows=None, use_cache: bool = False, logits_to_keep: int = 0, **options
    ):
        """Return logits (B, T, V) in float32 for input_ids (B, T), or only those of the last `logits_to_keep` tokens.

        `rows` (B, T_all) are the tokens that are cached, followed by input_ids. ValueError if a row is not the start of
        a workflow, or is longer than the context.
        """
        rows, cache = input_ids if rows is None else rows, options.get(CACHE)
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        layout = self._layout(rows, attention_mask, input_ids.size(1), cache)
        x = self.gpt.hidden(input_ids.reshape(1, -1), layout).view(*input_ids.shape, -1)  # (B, T, C)
        return CausalLMOutputWithPast(logits=self.gpt.logits(x[:, -logits_to_keep:]), **{CACHE: cache})

    def _layout(self, rows, attention_mask, count: int, cache) -> CachedRows:
        """Return the layout of the last `count` tokens of rows (B, T_all)."""
        is_token = torch.ones_like(rows) if attention_mask is None else attention_mask  # not padding
        positions = (is_token.cumsum(1) - 1).clamp_min(0)  # (B, T_all)
        after = torch.tensor(self._schema_positions(rows.tolist()), device=rows.device)  # (B, T_all)
        before = F.pad(after, (1, -1)).masked_fill(positions == 0, 0)
        earlier = torch.ones(rows.size(1), rows.size(1), dtype=torch.bool, device=rows.device).tril(-1)
        mask = earlier & is_token.bool()[:, None] | torch.eye(rows.size(1), dtype=torch.bool, device=rows.device)
        return CachedRows(
            positions=last(positions, count)[0],
            max_seqlen=int(positions.max()) + 1,
            schema_positions=last(after, count),
            tokens_before=last(F.pad(rows, (1, -1)), count),
            schema_positions_before=last(before, count),
            mask=mask[:, None, -count:],
            cache=cache,
        )

    def _schema_positions(self, rows: list[list[int]]) -> list[list[int]]:
        """Return the schema position after each token of each row. Those of padding do not matter."""
        self._matchers = {tokens: self._matcher(tokens) for tokens in map(tuple, rows)}
        found = []
        for row in rows:
            known = self._matchers[tuple(row)].state_ids()  # before the workflow's first token, and after each
            n_before = next((index for index, token in enumerate(row) if token != PAD), len(row)) - 1
            found.append([0] * n_before + known + known[-1:] * (len(row) - n_before - len(known)))
        return found

    def _matcher(self, tokens: tuple[int, ...]):
        """Return a matcher after the tokens of a row."""
        before = self._matchers.get(tokens[:-1])
        matcher = before.fork() if before else tct.matcher()
        new = [token for token in (tokens[-1:] if before else tokens) if token != PAD]
        if tokens[0] != PAD or not matcher.accept_tokens(new):
            raise ValueError(
                f"the tokens {[*tokens[:8]]} ... are not 0 and then the start of a workflow, so they have no schema "
                "positions, which the model takes as input: generate with TctLogitsProcessor"
            )
        return matcher


def last(x, count: int):
    """Return the last `count` columns of x (B, T) in one line (1, B * count)."""
    return x[:, -count:].reshape(1, -1)
