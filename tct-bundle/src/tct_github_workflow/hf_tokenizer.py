"""The workflow tokenizer as a tokenizer of Hugging Face transformers.

This file travels with exported models: AutoTokenizer loads it with `trust_remote_code=True`. So it imports only what is
installed, and nothing relative to itself.
"""

from transformers import PreTrainedTokenizer

try:
    import tct_github_workflow as tct
    from tct.symbols import PAD
    from tct_github_workflow.workflow_yaml import dump_workflow, load_json
except ImportError as error:  # transformers would name packages that are not ours
    raise ImportError(f"install tct-github-workflow from the repository of nanochat-tct ({error})") from None


class WorkflowTokenizer(PreTrainedTokenizer):
    """Encode the beginning of a workflow, YAML or JSON that may be cut anywhere, and decode tokens to YAML.

    The first token is 0, the position of a window at the start of a workflow. Padding is 0 too, and on the left.
    `tct_github_workflow.encode` encodes complete workflows.
    """

    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, fingerprint: str, **options):
        """Raise ValueError if the installed tokenizer is not the one with this fingerprint."""
        if fingerprint != tct.fingerprint():
            raise ValueError(
                f"the model was trained with workflow tokenizer {fingerprint}, but {tct.fingerprint()} is installed: "
                "install the version of tct-github-workflow that the model was exported with"
            )
        self._names = [tct.id_to_token(token) for token in range(tct.vocab_size())]
        self._ids = {name: token for token, name in enumerate(self._names)}
        super().__init__(fingerprint=fingerprint, special_tokens_pattern="bos", **options)

    @property
    def vocab_size(self) -> int:
        return len(self._names)

    def get_vocab(self) -> dict[str, int]:
        return dict(self._ids)

    def tokenize(self, text: str, **options) -> list[str]:
        """Return the names of the tokens of the beginning of a workflow. ValueError if no workflow begins so."""
        return [self._names[token] for token in tct.encode_prefix(text)]

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids[token]

    def _convert_id_to_token(self, index: int) -> str:
        return self._names[index]

    def _decode(self, token_ids, **options) -> str:
        """Return YAML, which ends where the tokens end. Tokens that do not start a workflow become readable names."""
        tokens = [token for token in ([token_ids] if isinstance(token_ids, int) else token_ids) if token != PAD]
        try:
            text, _, _ = tct.decode_prefix(tokens)
        except ValueError:
            return "".join(self._names[token] for token in tokens)
        return dump_workflow(load_json(text))
