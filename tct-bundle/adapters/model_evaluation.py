"""Evaluate a checkpoint: score held-out workflows, generate samples, complete real workflows. Ranks share the work."""

import json
import os.path
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from nanochat.checkpoint_manager import load_model
from nanochat.device import autocast, choose_device, choose_dtype
from nanochat.distributed import Ranks, gather_bytes, process_group, sum_over_ranks
from nanochat.inference import prepare_for_inference
from nanochat.loss_eval import TokenScores, bootstrap_interval, perplexity, score_batch
from tct_packing import packed_data_loader
from workflow_data.reader import check_metadata, iter_workflows, load_rows, open_tokenizer, read_metadata
from workflow_eval.completions import PARTS, compare_continuations, summarize_completions
from workflow_eval.samples import SampleSet, TrainingIndex, compare_with_real, evaluate_samples, find_tools
from workflow_eval.token_kinds import KINDS, MaskInterner, annotate_tokens
from workflow_generator import TokenLanguage, WorkflowGenerator, find_language

MAX_COMPLETION = 256  # tokens

# -- held-out workflows


@dataclass(frozen=True)
class HeldOut:
    """The W workflows of a split, and their N tokens end to end."""

    texts: list[str]  # compact JSON of each workflow
    tokens: list[np.ndarray]  # of each workflow
    ends: np.ndarray  # int64 (W,) the end of each workflow among all tokens
    rows: np.ndarray  # int64 (R,) the first token of each window among all tokens
    kinds: np.ndarray | None  # int32 (N,) the kind of each token; None if the tokens have no kinds
    masks: np.ndarray | None  # uint8 (M, V / 8) the distinct masks of allowed tokens
    mask_of: np.ndarray | None  # int32 (N,) the mask of each token

    @property
    def json_bytes(self) -> np.ndarray:
        """The size of each workflow's text, (W,)."""
        return np.array([len(text.encode()) for text in self.texts])

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of values (N,) over each workflow, (W,)."""
        return np.diff(np.concatenate([[0], values.cumsum()])[np.concatenate([[0], self.ends])])


def read_held_out(data_dir, metadata: dict, tokenizer) -> HeldOut:
    """Read the validation split of a prepared folder. Raise ValueError if it is damaged."""
    masks, annotations, workflows, texts = MaskInterner(), [], [], []
    has_kinds, count = hasattr(tokenizer, "matcher"), metadata["splits"]["val"]["workflows"]
    for workflow in tqdm(iter_workflows(data_dir, "val", metadata), "read", count, unit="workflow", disable=None):
        workflows.append(workflow)
        try:
            texts.append(tokenizer.decode(workflow.tokens.tolist()))
            if has_kinds:
                annotations.append(annotate_tokens(workflow.tokens.tolist(), masks, tokenizer))
        except ValueError as error:
            fault = f"the tokens of {workflow.file!r} in {data_dir} are damaged ({error})"
            raise ValueError(f"{fault}: prepare the folder again") from None
    tokens = [workflow.tokens for workflow in workflows]
    ends = np.cumsum(list(map(len, tokens)))
    positions = load_rows(data_dir, "val", metadata)[:, 0].numpy().astype(np.int64)
    starts = np.concatenate([[0], ends[:-1]])
    rows = starts[(positions == 0).cumsum() - 1] + positions * metadata["stride"]
    kinds, _, mask_of = map(np.concatenate, zip(*annotations)) if has_kinds else (None,) * 3
    return HeldOut(texts, tokens, ends, rows, kinds, masks.table() if has_kinds else None, mask_of)


def score_held_out(model, held_out: HeldOut, data_dir, batch_size: int, dtype) -> TokenScores:
    """Score each of the N tokens once, after at least half a context of earlier tokens if there are that many.

    The ranks share the work; all return the whole result.
    """
    device, config = model.get_device(), model.config
    place = batch_size, config.sequence_len, "val", data_dir, device
    loader = packed_data_loader(*place, with_states=config.n_states > 0)
    scores = torch.zeros(3, held_out.ends[-1], dtype=torch.float64)
    segments_of = loader.batches[loader.rank :: loader.world_size]
    for batch, segments in tqdm(zip(loader, segments_of), "score", len(segments_of), unit="batch", disable=None):
        targets = np.concatenate([np.arange(start, stop) + held_out.rows[row] for row, start, stop in segments])
        masks = None if held_out.masks is None else held_out.masks[held_out.mask_of[targets]]
        with autocast(device, dtype):
            found = score_batch(model, *batch, masks=masks)
        scores[:, targets] = torch.from_numpy(np.stack([found.nats, found.ranks, found.allowed_nats]))
    nats, ranks, allowed_nats = sum_over_ranks(scores).numpy()
    return TokenScores(nats, ranks.astype(np.int32), allowed_nats)


def summarize_scores(held_out: HeldOut, scores: TokenScores) -> dict:
    """Return the figures of eval.json. Intervals are 95% intervals over workflows."""
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
        **accuracies(scores.ranks),
    }
    if held_out.masks is None:
        return results
    return results | {
        "val_bits_per_byte_renormalised": ratio(renormalised, bits),
        "val_bits_per_byte_renormalised_interval": bootstrap_interval(renormalised, bits),
        "allowed_probability": float(np.exp(-scores.allowed_nats).mean()),
        "kinds": summarize_kinds(held_out, scores),
    }


def summarize_kinds(held_out: HeldOut, scores: TokenScores) -> dict:
    results = {}
    for number, kind in enumerate(KINDS):
        chosen = held_out.kinds == number
        if not chosen.any():
            continue
        nats, count, ranks = scores.nats[chosen].sum(), int(chosen.sum()), scores.ranks[chosen]
        shares = {"share_of_tokens": count / len(chosen), "share_of_bits": float(nats / scores.nats.sum())}
        losses = {"loss": float(nats / count), "perplexity": perplexity(nats, count)}
        results[kind] = {"tokens": count, **shares, **losses, **accuracies(ranks)}
    return results


def accuracies(ranks: np.ndarray) -> dict:
    return {f"top{n}_accuracy": float((ranks < n).mean()) for n in (1, 5)}


def ratio(numerators, denominators) -> float:
    return float(np.sum(numerators) / np.sum(denominators))


# -- a checkpoint and the data to evaluate it on


@dataclass(frozen=True)
class Evaluation:
    """A checkpoint, and the held-out workflows that it is evaluated on. Every rank has to call each method except
    `judge`."""

    model: object
    meta: dict
    language: TokenLanguage
    dtype: torch.dtype
    data_dir: str
    metadata: dict
    tokenizer: object
    held_out: HeldOut
    ranks: Ranks

    def score(self, batch_size: int) -> dict:
        """Return the figures of the held-out loss."""
        scores = score_held_out(self.model, self.held_out, self.data_dir, batch_size, self.dtype)
        return summarize_scores(self.held_out, scores)

    def generator(self) -> WorkflowGenerator:
        """Prepare the model for generation. Nothing else can be done with it afterwards."""
        model = prepare_for_inference(self.model, self.dtype)
        return WorkflowGenerator(model, self.meta["data"]["stride"], self.language)

    def generate(self, generator: WorkflowGenerator, count: int, **options) -> list[dict]:
        """Return text, tokens and finish_reason of `count` samples from scratch, the same on all ranks."""
        first, last = self._part_of(count)
        stream = generator.stream(last - first, first=first, **options) if last > first else ()
        samples = tqdm(stream, "sample", last - first, unit="workflow", disable=None)
        fields = ("tokens", "finish_reason", "accepted")
        return gather([{"text": s.json, **{name: getattr(s, name) for name in fields}} for s in samples])

    def complete(self, generator: WorkflowGenerator, count: int, seed: int, constrained: bool) -> dict:
        """Return the figures of completions of `count` held-out workflows, cut after half of their tokens."""
        constrained = constrained and hasattr(self.tokenizer, "matcher")  # llguidance allows only its own order of keys
        chosen, compared = self.choose(count, seed), []
        first, last = self._part_of(len(chosen))
        for index in tqdm(chosen[first:last], "complete", unit="workflow", disable=None):
            text, tokens = self.held_out.texts[index], self.held_out.tokens[index].tolist()
            half = tokens[: len(tokens) // 2]
            options = {"constrained": constrained, "max_tokens": MAX_COMPLETION, "temperature": 0}
            [completion] = generator.generate(1, tokens=half, **options)
            cut = len(os.path.commonprefix([self.tokenizer.decode_prefix(half), text]))
            compared.append(compare_continuations(text, completion.json, cut))
        parts = PARTS if self.language.documents.is_workflow else PARTS[:1]
        return summarize_completions(gather(compared), parts)

    def judge(self, samples: list[dict], by_schema: list[dict], seed: int) -> tuple[dict, dict[str, SampleSet]]:
        """Return the figures of samples, of those by the schema alone, if any, and of as many real workflows, and the
        sets "samples" and "real". "left_out" of the figures has the reason for each part that is missing."""
        documents = self.language.documents
        linter, parser, left_out = find_tools() if documents.is_workflow else (None, None, [])
        training = None
        try:
            training = TrainingIndex.read(self.data_dir, self.metadata, self.tokenizer)
            if training.left_out:
                left_out.append(f"copies of {training.left_out:,} further training workflows: they were not looked at")
        except ValueError as error:  # thinned windows, which do not have all tokens
            left_out.append(f"copies of training workflows: {error}")
        tools = training, linter, parser, documents
        chosen = self.choose(len(samples), seed)
        real = [self.held_out.texts[i] for i in chosen], [self.held_out.tokens[i] for i in chosen], None
        sets = {
            "samples": sample_set(samples, *tools),
            "real": SampleSet(*real, None, *tools),
        }
        figures = compare_with_real(*sets.values(), [json.loads(text) for text in self.held_out.texts], seed)
        if by_schema:
            figures["by_schema"] = evaluate_samples(sample_set(by_schema, *tools))
        if "fields" not in figures and documents.is_workflow:
            left_out.append("how close samples are to real workflows: there are too few of either")
        return figures | {"left_out": left_out}, sets

    def choose(self, count: int, seed: int) -> list[int]:
        """Return the numbers of `count` random held-out workflows, or of all if there are fewer, in order."""
        total = len(self.held_out.texts)
        return sorted(np.random.default_rng(seed).choice(total, min(count, total), replace=False).tolist())

    def _part_of(self, count: int) -> tuple[int, int]:
        """Return the first and the last + 1 of this rank's share of `count` things."""
        rank, world_size = self.ranks.rank, self.ranks.world_size
        return count * rank // world_size, count * (rank + 1) // world_size


def sample_set(samples: list[dict], *tools) -> SampleSet:
    """Return the set of some samples of `Evaluation.generate`."""
    texts, tokens, reasons, accepted = (
        [sample[key] for sample in samples] for key in ("text", "tokens", "finish_reason", "accepted")
    )
    return SampleSet(texts, [np.array(ids, np.int32) for ids in tokens], reasons, accepted, *tools)


@contextmanager
def open_evaluation(checkpoint, data_dir, device: str, dtype: str | None) -> Iterator[Evaluation]:
    """Load a checkpoint and the held-out workflows of a prepared folder, and join the other ranks."""
    device = choose_device(device)
    model, meta = load_model(checkpoint, device)
    tokenizer, config = meta["data"]["tokenizer"], model.config
    language = find_language(tokenizer, checkpoint, config.n_states)
    metadata = read_metadata(data_dir)
    check_metadata(metadata, data_dir, config.sequence_len, config.vocab_size, tokenizer, config.n_states)
    tokenizer = open_tokenizer(data_dir, metadata)
    # The default is that of the training run: a timed choice could differ from one evaluation to the next.
    dtype = choose_dtype(dtype or meta.get("settings", {}).get("dtype", "float32"), device)
    with process_group(device) as ranks:
        held_out = read_held_out(data_dir, metadata, tokenizer)
        yield Evaluation(model, meta, language, dtype, data_dir, metadata, tokenizer, held_out, ranks)


def gather(mine: list) -> list:
    """Return the lists of all ranks, joined in the order of the ranks."""
    return [item for part in gather_bytes(json.dumps(mine).encode()) for item in json.loads(part)]
