"""Compile a schema and learn merges from a corpus: see workflow_data.build_tokenizer."""

from workflow_data.build_tokenizer import main

if __name__ == "__main__":
    main()
