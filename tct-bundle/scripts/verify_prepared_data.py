"""Prove that a prepared folder is sound: see workflow_data.verify."""

from workflow_data.verify import main

if __name__ == "__main__":
    main()
