"""Turn workflows into windows of tokens for training: see workflow_data.prepare."""

from workflow_data.prepare import main

if __name__ == "__main__":
    main()
