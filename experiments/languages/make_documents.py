"""Compose a corpus of documents of another language than GitHub workflows; equal seeds give equal documents.

    python experiments/languages/make_documents.py --language gitlab-ci --output documents

Each document is in a folder OWNER__PROJECT. `workflow_synth.parts` explains the templates. Taskfiles have a composer of
their own: workflow_synth.taskfiles.
"""

import random
from pathlib import Path

from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_new_files
from tct.json_text import canonical
from tct_github_workflow.workflow_yaml import dump_document
from workflow_synth.compose import resolve

OWNERS = ("alder", "birch", "cedar", "elm", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow", "yew")
WORDS = {
    "app": ("atlas", "beacon", "courier", "harbor", "ledger", "mosaic", "orders", "pulse", "sprout", "tide"),
    "registry": ("registry.example.com", "images.example.com/team"),
    "branch": ("main", "main", "master", "trunk"),
    "stage": ("staging", "preview", "production"),
    "port": (3000, 5000, 8000, 8080),
}
# What the projects of a toolchain have in common.
TOOLS = {
    "python": {
        "image": ("python:3.12-slim", "python:3.13"),
        "cache": ".cache/pip",
        "output": "dist/",
        "setup": ("pip install -e '.[dev]'", "pip install -r requirements.txt"),
        "lint": ("ruff check .", "mypy src"),
        "test": ("pytest", "pytest -q --cov", "pytest --junitxml=report.xml"),
        "build": "python -m build",
        "start": ("gunicorn <app>.wsgi", "uvicorn <app>:app --host 0.0.0.0"),
    },
    "node": {
        "image": ("node:22", "node:24-alpine"),
        "cache": "node_modules/",
        "output": "dist/",
        "setup": ("npm ci", "pnpm install --frozen-lockfile"),
        "lint": ("npm run lint", "npx eslint ."),
        "test": ("npm test", "npx vitest run"),
        "build": ("npm run build", "npx tsc -p ."),
        "start": "node dist/index.js",
    },
    "go": {
        "image": ("golang:1.24", "golang:1.25-alpine"),
        "cache": ".go/pkg/mod/",
        "output": "bin/",
        "setup": "go mod download",
        "lint": ("golangci-lint run", "go vet ./..."),
        "test": ("go test ./...", "go test -race ./..."),
        "build": "go build -o bin/<app> ./cmd/<app>",
        "start": "./bin/<app>",
    },
    "rust": {
        "image": ("rust:1.89", "rust:1.90-slim"),
        "cache": "target/",
        "output": "target/release/<app>",
        "setup": "cargo fetch",
        "lint": ("cargo clippy -- -D warnings", "cargo fmt --check"),
        "test": ("cargo test", "cargo test --all-features"),
        "build": "cargo build --release",
        "start": "./<app>",
    },
}
DATABASE = ("postgres:16", "postgres:17-alpine", "mysql:8.4", "redis:7")


def gitlab_ci(tool: dict) -> dict:
    """Return the template of a .gitlab-ci.yml."""
    on_branch = {"if": '$CI_COMMIT_BRANCH == "<branch>"'}
    deploys = [on_branch | {"when": (..., "manual", "on_success")}]
    on_request = {"if": '$CI_PIPELINE_SOURCE == "merge_request_event"'}
    setup = {"before_script": (..., [tool["setup"]])}
    return {
        "image": tool["image"],
        "stages": ["lint", "test", "build", "deploy"],
        "include": (..., ..., {"local": "/ci/common.yml"}, [{"template": "Security/SAST.gitlab-ci.yml"}]),
        "variables": (..., {"CACHE_DIR": "$CI_PROJECT_DIR/.cache", "LOG_LEVEL": ("info", "debug")}),
        "workflow": (..., ..., {"rules": [on_request, {"if": "$CI_COMMIT_TAG"}, on_branch]}),
        "cache": (..., {"key": ("$CI_COMMIT_REF_SLUG", {"files": ["package.json"]}), "paths": [tool["cache"]]}),
        "default": (..., ..., {"interruptible": True, "retry": (1, 2), "tags": (..., ["docker"])}),
        "lint": (..., {"stage": "lint", **setup, "script": [tool["lint"]], "allow_failure": (..., True)}),
        "test": {
            "stage": "test", "services": (..., [DATABASE]), **setup, "needs": (..., []),
            "script": [(..., tool["setup"]), tool["test"]],
            "coverage": (..., r"/TOTAL.*\s(\d+%)$/"), "parallel": (..., ..., 2),
            "artifacts": (..., {"when": "always", "reports": {"junit": "report.xml"}, "expire_in": "1 week"}),
        },
        "build": {
            "stage": "build", "script": [tool["build"]], "rules": (..., [on_request, on_branch]),
            "artifacts": {"paths": [tool["output"]], "expire_in": (..., "1 day", "1 week")},
        },
        "build-image": (..., {
            "stage": "build", "image": ("docker:27", {"name": "docker:28", "entrypoint": [""]}),
            "services": ["docker:dind"], "variables": {"IMAGE": "$CI_REGISTRY_IMAGE:$CI_COMMIT_SHORT_SHA"},
            "script": ['docker login -u "$CI_REGISTRY_USER" -p "$CI_REGISTRY_PASSWORD" "$CI_REGISTRY"',
                       "docker build -t $IMAGE .", "docker push $IMAGE"],
        }),
        "deploy": (..., {
            "stage": "deploy", "needs": (..., ["build"]), "rules": deploys,
            "script": ["./scripts/deploy.sh <stage>", (..., "curl -f https://<stage>.example.com/health")],
            "environment": ("<stage>", {"name": "<stage>", "url": "https://<stage>.example.com"}),
            "resource_group": (..., "<stage>"),
        }),
        "pages": (..., ..., {"stage": "deploy", "script": ["make docs", "mv docs/_build public"],
                             "artifacts": {"paths": ["public"]}, "only": ["<branch>"]}),
    }  # fmt: skip


def woodpecker_ci(tool: dict) -> dict:
    """Return the template of a .woodpecker.yml."""
    on_push = {"event": ("push", ["push", "pull_request"]), "branch": (..., "<branch>")}

    def step(commands, **keys):
        return {"image": tool["image"], "commands": [tool["setup"], commands], **keys}

    return {
        "when": (on_push, [on_push, {"event": "tag"}]),
        "labels": (..., ..., {"platform": ("linux/amd64", "linux/arm64")}),
        "clone": (..., {"git": {"image": "woodpeckerci/plugin-git", "settings": {"depth": (1, 50), "lfs": False}}}),
        "steps": {
            "lint": (..., step(tool["lint"], failure=(..., "ignore"))),
            "test": step(tool["test"], environment=(..., {"LOG_LEVEL": ("info", "debug"), "PORT": "<port>"})),
            "build": step(tool["build"], depends_on=(..., ["test"])),
            "image": (..., {
                "image": "woodpeckerci/plugin-docker-buildx",
                "settings": {"repo": "<registry>/<app>", "tags": (["latest"], "latest"), "dry_run": (..., True),
                             "password": {"from_secret": "registry_password"}},
                "when": {"event": "tag"},
            }),
            "deploy": (..., {
                "image": "alpine", "commands": ["./scripts/deploy.sh <stage>"],
                "environment": {"TOKEN": {"from_secret": "deploy_token"}},
                "when": {"event": ("push", "deployment"), "branch": "<branch>"},
            }),
            "notify": (..., {"image": "alpine/curl", "commands": ["curl -d done https://chat.example.com/<app>"],
                             "when": [{"status": ("failure", ["success", "failure"])}]}),
        },
        "services": (..., {"database": {"image": DATABASE, "environment": (..., {"POSTGRES_PASSWORD": "test"})}}),
    }  # fmt: skip


def compose_spec(tool: dict) -> dict:
    """Return the template of a compose.yaml."""
    restart, secret = (..., "unless-stopped", "always", "on-failure"), (..., ["db_password"])
    return {
        "name": (..., "<app>"),
        "services": {
            "<app>": {
                "build": (".", {"context": ".", "target": (..., "runtime"), "args": (..., {"VERSION": "1.4.0"})}),
                "image": (..., "<registry>/<app>:latest"), "command": tool["start"],
                "ports": ["<port>:<port>"], "environment": ({"PORT": "<port>", "LOG_LEVEL": ("info", "debug")},
                                                            ["PORT=<port>", "DATABASE_URL"]),
                "env_file": (..., ".env"), "volumes": (..., ["./src:/app/src"]), "restart": restart,
                "depends_on": (["db"], {"db": {"condition": ("service_healthy", "service_started")}}),
                "secrets": secret, "profiles": (..., ..., ["<stage>"]),
            },
            "worker": (..., {"image": tool["image"], "command": "<app>-worker", "depends_on": ["db"],
                             "deploy": (..., {"replicas": (1, 2, 3), "resources": {"limits": {"memory": "256M"}}})}),
            "db": {
                "image": DATABASE, "restart": restart, "volumes": ["data:/var/lib/data"],
                "environment": (..., {"POSTGRES_USER": "<app>", "POSTGRES_DB": "<app>"}), "secrets": secret,
                "healthcheck": (..., {"test": ["CMD", "pg_isready", "-U", "<app>"], "interval": ("5s", "10s"),
                                      "timeout": "5s", "retries": (3, 5)}),
            },
            "proxy": (..., {"image": ("nginx:1.29", "caddy:2"), "ports": ["80:80", (..., "443:443")],
                            "volumes": ["./proxy.conf:/etc/proxy.conf:ro"], "depends_on": ["<app>"]}),
        },
        "volumes": {"data": (None, {"driver": "local"})},
        "networks": (..., ..., {"default": {"name": "<app>"}}),
        "secrets": {"db_password": {"file": "./secrets/db_password.txt"}},
    }  # fmt: skip


# template, and the name of the file
LANGUAGES = {
    "gitlab-ci": (gitlab_ci, ".gitlab-ci.yml"),
    "woodpecker-ci": (woodpecker_ci, ".woodpecker.yml"),
    "compose-spec": (compose_spec, "compose.yaml"),
}


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description="Write a corpus of documents as YAML files.")
    parser.add("--language", "kind of document", choices=tuple(LANGUAGES), required=True)
    parser.add("--output", "folder for the files", type=Path, required=True)
    parser.add("--count", "number of documents", 600)
    parser.add("--seed", "random seed; equal seeds write equal files", 0)
    args = parser.parse_args(argv)
    documents = compose_documents(args.language, args.count, args.seed)
    write_new_files(args.output, {name: dump_document(document).encode() for name, document in documents})
    print(f"{args.count} documents in {args.output}")


def compose_documents(language: str, count: int, seed: int = 0) -> list[tuple[str, dict]]:
    """Return (path, value) of `count` distinct documents."""
    template, file = LANGUAGES[language]
    rng, documents, seen = random.Random(seed), [], set()
    while len(documents) < count:
        value = resolve(template(TOOLS[rng.choice(sorted(TOOLS))]), WORDS, rng, {})
        if canonical(value) not in seen:
            seen.add(canonical(value))
            documents.append((f"{rng.choice(OWNERS)}__project-{len(documents) + 1:04d}/{file}", value))
    return documents


if __name__ == "__main__":
    main()
