"""Compose synthetic Taskfiles, another kind of document, from templates; equal seeds give equal Taskfiles.

    python -m workflow_synth.taskfiles --output taskfiles --count 300

They show that a tokenizer can be built for any schema (tct-bundle/docs/TCT.md). `workflow_synth.parts` explains the
templates. Each Taskfile is in a folder OWNER__PROJECT.
"""

import json
import random
from pathlib import Path

from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_new_files
from tct_github_workflow.workflow_yaml import dump_workflow
from workflow_synth.compose import resolve

OWNERS = ("alder", "birch", "cedar", "elm", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow", "yew")
WORDS = {
    "app": ("atlas", "beacon", "courier", "harbor", "ledger", "mosaic", "orders", "pulse", "sprout", "tide"),
    "registry": ("registry.example.com", "images.example.com/team"),
    "port": (3000, 8000, 8080, 9090),
    "stage": ("staging", "preview", "production"),
}
# For each kind of project: sources, products, and the commands for each chore.
KINDS = {
    "go": {
        "sources": ["**/*.go", "go.mod", "go.sum"], "product": "bin/<app>", "setup": "go mod download",
        "build": "go build -ldflags '-X main.version={{.VERSION}}' -o bin/<app> ./cmd/<app>",
        "test": ("go test ./...", "go test -race -cover ./...", "go test ./... {{.CLI_ARGS}}"),
        "lint": ("golangci-lint run", "go vet ./..."), "format": "gofmt -w .", "run": "./bin/<app> --port <port>",
    },
    "python": {
        "sources": ["src/**/*.py", "pyproject.toml"], "product": "dist/*.whl",
        "setup": ("uv sync", "pip install -e '.[dev]'"), "build": ("uv build", "python -m build"),
        "test": ("pytest", "pytest -q {{.CLI_ARGS}}", "uv run pytest --cov"), "lint": ("ruff check .", "mypy src"),
        "format": "ruff format .", "run": "python -m <app> --port <port>",
    },
    "node": {
        "sources": ["src/**/*.ts", {"exclude": "src/**/*.test.ts"}, "package.json"], "product": "dist/**/*.js",
        "setup": ("npm ci", "pnpm install --frozen-lockfile"), "build": ("npm run build", "npx tsc -p ."),
        "test": ("npm test", "npx vitest run", "npm test -- {{.CLI_ARGS}}"), "lint": ("npx eslint .", "npm run lint"),
        "format": "npx prettier --write .", "run": "node dist/index.js --port <port>",
    },
    "rust": {
        "sources": ["src/**/*.rs", "Cargo.toml", "Cargo.lock"], "product": "target/release/<app>",
        "setup": "cargo fetch", "build": ("cargo build --release", "cargo build --release --locked"),
        "test": ("cargo test", "cargo nextest run"), "lint": "cargo clippy --all-targets -- -D warnings",
        "format": "cargo fmt", "run": "cargo run --release -- --port <port>",
    },
}
IMAGE = "<registry>/<app>:{{.VERSION}}"
VERSION = {"sh": ("git describe --tags --always", "git rev-parse --short HEAD")}


def chores(kind: dict) -> dict:
    """Return the templates of the tasks that a project may have, by name."""
    desc = (..., "The everyday checks", "What the build server runs")
    return {
        "setup": {"desc": "Install what is needed", "cmds": [kind["setup"]], "run": (..., "once"),
                  "status": (..., ["test -d .cache"]), "internal": (..., True)},
        "build": {"desc": "Build <app>", "deps": (..., ["setup"]), "sources": kind["sources"],
                  "generates": [kind["product"]], "method": (..., "checksum", "timestamp"),
                  "cmds": [kind["build"]]},
        "test": ({"desc": "Run the tests", "aliases": (..., ["t"]), "deps": ["setup"], "cmds": [kind["test"]]},
                 kind["test"], [kind["test"]]),
        "lint": (kind["lint"], {"desc": "Find faults", "cmds": [kind["lint"]], "ignore_error": (..., True)}),
        "format": {"desc": "Format the sources", "aliases": ["fmt"], "cmds": [kind["format"]], "silent": (..., True)},
        "check": {"desc": desc, "deps": ["lint", "test"], "failfast": (..., True)},
        "start": {"desc": "Start <app> on port <port>", "deps": ["build"], "cmd": kind["run"], "interactive": True,
                "env": {"PORT": "<port>", "LOG_LEVEL": ("debug", "info"), "COLOR": (..., False)},
                "dotenv": (..., [".env", ".env.local"])},
        "watch": {"desc": "Test whenever a file changes", "watch": True, "sources": kind["sources"],
                  "cmds": [{"task": "test"}]},
        "clean": {"desc": "Remove what was built", "prompt": (..., "Remove all of it?"),
                  "cmds": ["rm -rf .cache", {"cmd": "rm -rf dist", "platforms": ["linux", "darwin"]}]},
        "image": {"desc": "Build the container image", "deps": ["build"], "requires": {"vars": ["VERSION"]},
                  "preconditions": [{"sh": "docker info", "msg": "docker is not running"}, (..., "test -f Dockerfile")],
                  "cmds": [f"docker build -t {IMAGE} .", {"cmd": f"docker push {IMAGE}", "if": '[ "$CI" = true ]'}]},
        "release": {"desc": "Build for all platforms", "vars": {"OUT": "dist", "JOBS": (2, 4)}, "cmds": [
            "mkdir -p {{.OUT}}",
            {"for": {"matrix": {"OS": ["linux", "darwin"], "ARCH": ["amd64", "arm64"]}},
             "cmd": "./scripts/package.sh {{.ITEM.OS}} {{.ITEM.ARCH}} {{.OUT}}"},
            {"for": (["README.md", "LICENSE"], "sources"), "cmd": "cp {{.ITEM}} {{.OUT}}/"}]},
        "deploy": {"desc": "Deploy to an environment",
                   "summary": "Rolls out one version.\n\n  task deploy STAGE=<stage>\n",
                   "requires": {"vars": [{"name": "STAGE", "enum": ["staging", "preview", "production"]}]},
                   "vars": {"STAGE": "<stage>", "REPLICAS": (1, 2, 3)}, "label": (..., "deploy-{{.STAGE}}"),
                   "cmds": [{"task": "image", "vars": {"VERSION": "{{.VERSION}}"}, "silent": (..., True)},
                            {"cmd": "kubectl apply -n {{.STAGE}} -f deploy/", "timeout": (..., "5m")}]},
        "database": {"desc": "Run the tests against a database", "dir": (..., "tests"), "cmds": [
            "docker compose up -d db", {"defer": "docker compose down"}, {"task": "test"}]},
        "services": {"desc": "Check each service", "vars": {"SERVICES": "api,worker,web"}, "cmds": [
            {"for": {"var": "SERVICES", "split": ",", "as": "SERVICE"}, "task": "test",
             "vars": {"SERVICE": "{{.SERVICE}}"}}]},
    }


HEADS = (
    {"version": "3"},
    {"version": ("3", 3), "vars": {"VERSION": VERSION, "IMAGE": "<registry>/<app>"}},
    {"version": ("3", "3.38", 3), "output": ("prefixed", "interleaved"), "dotenv": [".env"],
     "vars": {"VERSION": VERSION}},
    {"version": "3", "silent": True, "env": {"CI": ("true", True)}, "vars": {"VERSION": "1.4.0", "RETRIES": (0, 3, 5)}},
    {"version": "3", "output": {"group": {"begin": "::group::{{.TASK}}", "end": "::endgroup::"}}, "method": "checksum",
     "set": ["pipefail", "errexit"], "vars": {"LIMITS": {"map": {"cpu": 0.5, "memory": "256Mi"}}, "VERSION": VERSION}},
    {"version": "3", "includes": {"docs": ("./docs", {"taskfile": "./docs/Taskfile.yml", "dir": "docs"}),
                                  "tools": {"taskfile": "./tools", "optional": True, "internal": (..., True)}},
     "run": (..., "when_changed"), "vars": {"VERSION": VERSION}},
)


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description="Write a sample of Taskfiles as .yml files.")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the files")
    parser.add_argument("--count", type=int, default=300, help="number of Taskfiles (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="random seed; equal seeds write equal files (default 0)")
    args = parser.parse_args(argv)

    taskfiles = compose_taskfiles(args.count, args.seed)
    write_new_files(args.output, {name: dump_workflow(taskfile).encode() for name, taskfile in taskfiles})
    print(f"{args.count} Taskfiles in {args.output}")


def compose_taskfiles(count: int, seed: int = 0) -> list[tuple[str, dict]]:
    """Return (path, Taskfile) of `count` distinct Taskfiles. Raise ValueError if count is below 1."""
    if count < 1:
        raise ValueError(f"--count {count}: ask for at least 1 Taskfile")
    rng, taskfiles, seen = random.Random(seed), [], set()
    while len(taskfiles) < count:
        taskfile = compose(rng)
        canonical = json.dumps(taskfile, sort_keys=True)
        if canonical not in seen:
            seen.add(canonical)
            project = f"{rng.choice(OWNERS)}__project-{len(taskfiles) + 1:04d}"
            taskfiles.append((f"{project}/Taskfile.yml", taskfile))
    return taskfiles


def compose(rng: random.Random) -> dict:
    """Return a Taskfile of one kind of project, with about half of its tasks and the tasks that these call."""
    tasks = chores(KINDS[rng.choice(sorted(KINDS))])
    wanted = [name for name in tasks if rng.random() < 0.5] or ["test"]
    for name in wanted:  # grows in the loop: a called task may call another
        wanted += [other for other in tasks if repr(other) in repr(tasks[name]) and other not in wanted]
    default = {"cmds": (["task --list"], [{"task": name} for name in wanted[:3]]), "silent": (..., True)}
    template = rng.choice(HEADS) | {"tasks": {"default": default} | {name: tasks[name] for name in wanted}}
    return resolve(template, WORDS, rng, {})


if __name__ == "__main__":
    main()
