"""What several test files share."""

from script_tools.bitmask import allowed_tokens


def exit_code(main, arguments) -> int:
    """Run the main of a script and return its exit code, 0 if it returns."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0


def allowed(matcher) -> list[int]:
    """Return the tokens that a matcher's mask allows next."""
    mask = matcher.allocate_token_bitmask()
    has_more = matcher.fill_next_token_bitmask(mask)
    tokens = allowed_tokens(mask[0]).tolist()
    assert has_more == bool(tokens)
    return tokens
