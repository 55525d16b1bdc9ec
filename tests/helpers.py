"""What several test files share."""


def exit_code(main, arguments) -> int:
    """Run the main of a script and return its exit code, 0 if it returns."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0
