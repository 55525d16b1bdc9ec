"""Write the table of known actions of a corpus: see workflow_data.build_known_actions."""

from workflow_data.build_known_actions import main

if __name__ == "__main__":
    main()
