"""The forms of texts: tables of what GitHub takes and refuses, and endings that complete a cut text."""

import pytest

from tct_github_workflow.rules.formats import (
    ACTION,
    CRON,
    IDENTIFIERS,
    NAME,
    PATH,
    REF,
    SHELL,
    VARIABLE,
    WORKFLOW,
    platform_of,
    shell_fault,
)

FORMS = {
    "cron": (
        CRON,
        ["0 0 * * *", "*/5 * * * *", "*/15 0-6,22-23 1,15 * 1-5", "30 5 * JAN-mar Mon", "0 0 29 2 *", "5/10 * * * *"]
        + [
            "00 12 * * 0",
            "0  0 * * *",
            "0 0 31 4,5 *",
            "0 0 31 2 1",
            "0,30 * * * *",
            "7 */2 1-7 */3 sun,6",
            "0 0/6 * * *",
        ],
        ["", "* * * *", "0 0 * * * *", "60 0 * * *", "0 24 * * *", "0 0 0 * *", "0 0 32 * *", "0 0 * 0 *", "0 0 * 13 *"]
        + [
            "0 0 * * 7",
            "0 0 * * 5-1",
            "*/0 * * * *",
            "0 */0 * * *",
            "*/60 * * * *",
            "@daily",
            "0 0 L * *",
            "0 0 * * 1#2",
        ]
        + ["0 0 * JANUARY *", "*/4 * * * *", "0-3 * * * *", "59,0 * * * *", "0 0 31 2 *", "0 0 30 2 *", " 0 0 * * *"]
        + [
            "0 0 * * * ",
            "0\t0 * * *",
            "-1 0 * * *",
            "1- 0 * * *",
            "0,,5 0 * * *",
            "0 ? * * *",
            "a 0 * * *",
            "1/2/3 0 * * *",
        ],
    ),
    "branch or tag": (
        REF,
        [
            "main",
            "**",
            "v[0-9]+.[0-9]+",
            "feature/**",
            "!x",
            "refs/heads/main",
            "{a,b}",
            "a..b",
            "a?",
            "a*",
            "[ab]c",
            "é",
        ]
        + ["[!a]", "a+b+", "\\+", "v1.*", "*/*", "$default-branch"],
        [
            "",
            "!",
            "+a",
            "a++",
            "**?",
            "[a]",
            "[]",
            "[a",
            "[a-]",
            "[z-a]",
            "a b",
            "/a",
            "a/",
            "a.",
            "a~b",
            "a^",
            "a:b",
            "!?a",
        ]
        + ["a\nb", "a\t", "\\[", "\\?", "\\a", "a\\"],
    ),
    "path": (
        PATH,
        [
            "**",
            "src/**",
            "!docs/**",
            "*.py",
            "a b",
            "/a",
            "a/",
            "a.",
            "a~b",
            "[ab]",
            ".github/workflows/ci.yml",
            "\\[a",
            "a\\",
        ]
        + ["..a", "!.a"],
        ["", "!", " a", "a ", "?a", "a[]", "[a", "**+", "./a", "../a", ".", "..", "!./a", "a\nb"],
    ),
    "action": (
        ACTION,
        [
            "actions/checkout@v4",
            "a/b/c/d@main",
            "./",
            "./a",
            "./.github/actions/x",
            "docker://alpine",
            "docker://a:3.20",
        ]
        + ["docker://ghcr.io/a/b:latest", "a/b@refs/heads/x", "docker://a@sha256:0a"],
        [
            "",
            "actions/checkout",
            "checkout@v4",
            "a/b@",
            "/b@v1",
            "a/@v1",
            "docker://",
            "docker://a:",
            "docker://a b",
            "a",
            "@v1",
        ],
    ),
    "called workflow": (
        WORKFLOW,
        ["./.github/workflows/a.yml", "a/b/.github/workflows/c.yml@v1", "a/b/c@d"],
        ["", "./", "./a.yml@v1", "a/b@v1", "a/b/c.yml", "a/b/c.yml@", "/b/c.yml@v1", "a.yml", "../a/b.yml@v1"],
    ),
    "id": (
        IDENTIFIERS,
        ["a", "_a", "A-b_2", "a" * 99, "_", "a--b"],
        ["", "1a", "-a", "__a", "a b", "a.b", "é", "a" * 100, "a\n", "${{a}}"],
    ),
    "input": (NAME, ["a", "_a", "__a", "a" * 200, "A-b_2"], ["", "1a", "-a", "a b", "a.b", "é"]),
    "variable": (VARIABLE, ["A", "1", "a.b", "é", "A-B", "a\nb"], ["", "A B", "A=B", "A&B", "A\tB"]),
    "shell": (SHELL, ["bash", "pwsh", "BASH", "perl {0}", "{0}", "cmd"], ["", "fish", "perl", "bash -e", "{1}"]),
}


@pytest.mark.parametrize("form, text", [(form, text) for form in FORMS for text in FORMS[form][1]])
def test_the_form_takes(form, text):
    assert FORMS[form][0].fault(text) == ""


@pytest.mark.parametrize("form, text", [(form, text) for form in FORMS for text in FORMS[form][2]])
def test_the_form_refuses(form, text):
    assert FORMS[form][0].fault(text)


@pytest.mark.parametrize("form, text", [(form, text) for form in FORMS for text in FORMS[form][1]])
def test_a_cut_text_has_an_ending(form, text):
    form, _, _ = FORMS[form]
    for end in range(len(text) + 1):
        assert any(not form.fault(text[:end] + rest) for rest in form.endings(text[:end])), text[:end]


@pytest.mark.parametrize(
    "labels, platform",
    [
        (["ubuntu-latest"], "unix"),
        (["self-hosted", "Windows"], "windows"),
        (["macos-14", "windows-2022"], "any"),
        (["self-hosted"], "any"),
        ([], "any"),
    ],
)
def test_labels_tell_the_platform(labels, platform):
    assert platform_of(labels) == platform


def test_each_platform_has_its_shells():
    assert not shell_fault("cmd", "windows") and shell_fault("cmd", "unix") and not shell_fault("sh", "unix")
    assert shell_fault("sh", "windows") and not shell_fault("perl {0}", "unix")
