"""Evaluation on held-out workflows: what a model makes of each of their tokens."""

from dataclasses import dataclass

import numpy as np

from nanochat.device import autocast
from nanochat.distributed import sum_over_ranks
from nanochat.loss_eval import TokenScores, bootstrap_interval, perplexity, score_batch


@dataclass(frozen=True)
class HeldOut:
    """The workflows of a split, the tokens of all of them end to end."""

    texts: list[str]  # compact JSON of each (W)
    tokens: list[np.ndarray]  # of each workflow
    ends: np.ndarray  # int64 (W,) where each ends in the line of all N tokens
    rows: np.ndarray  # int64 (R,) where in that line the first token of each window is
    kinds: np.ndarray | None  # int32 (N,) of each token; None where tokens do not have any
    masks: np.ndarray | None  # uint8 (M, V / 8): the masks of allowed tokens that occur ...
    mask_of: np.ndarray | None  # int32 (N,) ... and which of them each token has

    @property
    def json_bytes(self) -> np.ndarray:
        """Of each workflow, (W,)."""
        return np.array([len(text.encode()) for text in self.texts])

    def sums(self, values: np.ndarray) -> np.ndarray:
        """For each workflow the sum over its tokens of values (N,)."""
        return np.diff(np.concatenate([[0], values.cumsum()])[np.concatenate([[0], self.ends])])


def read_held_out(data_dir, metadata: dict, tokenizer) -> HeldOut:
    """The validation split of a prepared folder."""
    from tqdm import tqdm

    from workflow_data.reader import iter_workflows, load_rows
    from workflow_eval.token_kinds import MaskTable, find_places

    table, places, workflows, texts = MaskTable(), [], [], []
    has_places = hasattr(tokenizer, "matcher")
    for workflow in tqdm(
        iter_workflows(data_dir, "val", metadata),
        "read",
        metadata["splits"]["val"]["workflows"],
        unit="workflow",
        disable=None,
    ):
        workflows.append(workflow)
        try:
            texts.append(tokenizer.decode(workflow.tokens.tolist()))
            if has_places:
                places.append(find_places(workflow.tokens.tolist(), table))
        except ValueError as error:
            raise ValueError(
                f"the tokens of {workflow.file!r} in {data_dir} are damaged ({error}): prepare the folder again"
            ) from None
    ends = np.cumsum([len(workflow.tokens) for workflow in workflows])
    positions = load_rows(data_dir, "val", metadata)[:, 0].numpy().astype(np.int64)
    begins = np.concatenate([[0], ends[:-1]])
    rows = begins[(positions == 0).cumsum() - 1] + positions * metadata["stride"]
    kinds, _, mask_of = map(np.concatenate, zip(*places)) if has_places else (None,) * 3
    tokens = [workflow.tokens for workflow in workflows]
    return HeldOut(texts, tokens, ends, rows, kinds, table.packed() if has_places else None, mask_of)


def score_held_out(model, held_out: HeldOut, data_dir, batch_size: int, dtype) -> TokenScores:
    """Of all N tokens, each seen once, in a window that shows at least half a context before it where there is so
    much. The ranks share the work; all get the result."""
    import torch
    from tqdm import tqdm

    from tct_packing import packed_data_loader

    loader = packed_data_loader(
        batch_size,
        model.config.sequence_len,
        "val",
        data_dir,
        model.get_device(),
        with_states=model.config.n_states > 0,
    )
    scores = torch.zeros(3, held_out.ends[-1], dtype=torch.float64)
    segments_of = loader.batches[loader.rank :: loader.world_size]
    for batch, segments in tqdm(zip(loader, segments_of), "score", len(segments_of), unit="batch", disable=None):
        places = np.concatenate([np.arange(start, stop) + held_out.rows[row] for row, start, stop in segments])
        masks = None if held_out.masks is None else held_out.masks[held_out.mask_of[places]]
        with autocast(model.get_device(), dtype):
            found = score_batch(model, *batch, masks=masks)
        scores[:, places] = torch.from_numpy(np.stack([found.nats, found.ranks, found.allowed_nats]))
    nats, ranks, allowed_nats = sum_over_ranks(scores).numpy()
    return TokenScores(nats, ranks.astype(np.int32), allowed_nats)


def summarize_scores(held_out: HeldOut, scores: TokenScores) -> dict:
    """The figures of eval.json. Intervals are of 95%, over workflows."""
    tokens = np.diff(held_out.ends, prepend=0)  # (W,)
    nats, renormalised = held_out.sums(scores.nats), held_out.sums(scores.nats - scores.allowed_nats)
    bits = held_out.json_bytes * np.log(2)
    results = {
        "val_workflows": len(tokens),
        "val_tokens": int(tokens.sum()),
        "val_json_bytes": int(held_out.json_bytes.sum()),
        "val_loss": ratio(nats, tokens),
        "val_loss_interval": bootstrap_interval(nats, tokens),
        "val_perplexity": perplexity(nats.sum(), tokens.sum()),
        "val_perplexity_interval": [perplexity(end, 1) for end in bootstrap_interval(nats, tokens)],
        "val_bits_per_byte": ratio(nats, bits),
        "val_bits_per_byte_interval": bootstrap_interval(nats, bits),
        "top1_accuracy": float((scores.ranks < 1).mean()),
        "top5_accuracy": float((scores.ranks < 5).mean()),
    }
    if held_out.masks is None:
        return results
    return results | {
        "val_bits_per_byte_renormalised": ratio(renormalised, bits),
        "val_bits_per_byte_renormalised_interval": bootstrap_interval(renormalised, bits),
        "allowed_probability": float(np.exp(-scores.allowed_nats).mean()),
        "kinds": by_kind(held_out, scores),
    }


def by_kind(held_out: HeldOut, scores: TokenScores) -> dict:
    """The same for each kind of token."""
    from workflow_eval.token_kinds import KINDS

    results = {}
    for number, kind in enumerate(KINDS):
        chosen = held_out.kinds == number
        if not chosen.any():
            continue
        nats, count = scores.nats[chosen].sum(), int(chosen.sum())
        results[kind] = {
            "tokens": count,
            "share_of_tokens": count / len(chosen),
            "share_of_bits": float(nats / scores.nats.sum()),
            "loss": float(nats / count),
            "perplexity": perplexity(nats, count),
            "top1_accuracy": float((scores.ranks[chosen] < 1).mean()),
            "top5_accuracy": float((scores.ranks[chosen] < 5).mean()),
        }
    return results


def ratio(numerators, denominators) -> float:
    return float(np.sum(numerators) / np.sum(denominators))
