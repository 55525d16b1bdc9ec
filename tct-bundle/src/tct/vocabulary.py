"""The vocabulary of a tokenizer: the type machine, the tokens over its symbols, and what is computed from both."""

from functools import cached_property

from tct.bpe import BpeModel
from tct.machine import TypeMachine
from tct.masks import Masks
from tct.schema_position import SchemaPositions


class Vocabulary:
    """A type machine and a BPE model over its symbols. Matchers share one, because masks are cached in it."""

    def __init__(self, machine: TypeMachine, bpe: BpeModel):
        self.machine, self.bpe = machine, bpe

    @cached_property
    def masks(self) -> Masks:
        return Masks(self.bpe.symbols_of)

    @cached_property
    def positions(self) -> SchemaPositions:
        return SchemaPositions(self.machine)
