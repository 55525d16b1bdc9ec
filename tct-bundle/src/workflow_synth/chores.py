"""Define the chores of synthetic workflows: scans, bots, infrastructure, operations and special builds.

Each chore is a complete template (see `parts`).
"""

from workflow_synth.parts import (
    AWS,
    AZURE,
    BRANCH,
    CHECKOUT,
    CHECKOUT_ALL,
    GH_TOKEN,
    GHCR,
    GOOGLE,
    IDENTITY,
    KUBECONFIG,
    READ,
    TAGS,
    WRITE,
    WithWords,
    download,
    job,
    run,
    setup_node,
    slack,
    upload,
    use,
)

PUSH, PULL, CHANGE = {"push": BRANCH}, {"pull_request": None}, {"push": BRANCH, "pull_request": None}
BY_HAND, ON_TAG = {"workflow_dispatch": None}, {"push": TAGS}
NIGHTLY, WEEKLY = {"schedule": [{"cron": "<nightly>"}]}, {"schedule": [{"cron": "<weekly>"}]}
PULLS, ISSUES, SARIF = {"pull-requests": "write"}, {"issues": "write"}, {"security-events": "write"}
TOKEN = "${{ secrets.GITHUB_TOKEN }}"
BOT = ('git config user.name "github-actions[bot]"\n'
       'git config user.email "github-actions[bot]@users.noreply.github.com"\n')
PYTHON = use("Set up Python", "actions/setup-python", {"python-version": ("3.12", "3.13", "3.x")})


def chore(name, on, title, steps, **keys) -> dict:
    """Return a workflow of one job; the job's id comes from its title."""
    job_id = title.lower().replace(" ", "-")
    return {"name": name, "on": on, "jobs": {job_id: job((..., title), steps, **keys)}}


def on_paths(*paths) -> tuple:
    """Return the events for changes of these files."""
    only = {"paths": list(paths)}
    return {"pull_request": only}, {"push": BRANCH | only, "pull_request": only}


def over(variable, *values) -> dict:
    """Return a strategy over one variable; its values are one of these lists."""
    return {"fail-fast": (..., False), "matrix": {variable: values}}


def script(name, *lines, **keys) -> dict:
    """Return a step that runs JavaScript."""
    return use(name, "actions/github-script", {"script": "\n".join(lines) + "\n"}, **keys)


# -----------------------------------------------------------------------------
# scans and linters

SCANS = {
    "codeql": {
        "name": ("CodeQL", "Code scanning"), "on": {"push": BRANCH, "pull_request": BRANCH} | WEEKLY,
        "jobs": {"analyze": job("Analyze (${{ matrix.language }})", [
            CHECKOUT,
            use("Initialize CodeQL", "github/codeql-action/init@v3",
                {"languages": "${{ matrix.language }}", "queries": (..., "security-extended")}),
            use("Perform CodeQL analysis", "github/codeql-action/analyze@v3",
                {"category": "/language:${{ matrix.language }}"})],
            permissions=READ | SARIF | {"actions": (..., "read")},
            strategy=over("language", ["python"], ["javascript-typescript"], ["actions", "go"], ["ruby"],
                          ["csharp"], ["actions", "python", "javascript-typescript"]))}},
    "dependency-review": chore(
        ("Dependency review", "Review dependencies"), ({"pull_request": None}, {"pull_request": BRANCH}),
        "Dependency review",
        [CHECKOUT, use(("Dependency review", "Review"), "actions/dependency-review-action@v4", (
            ..., {"fail-on-severity": ("moderate", "high", "critical")},
            {"deny-licenses": "GPL-3.0, AGPL-3.0", "comment-summary-in-pr": "on-failure"}))],
        permissions=READ | PULLS),
    "scorecard": chore(
        ("Scorecard", "Supply-chain security"), {"branch_protection_rule": None} | WEEKLY | PUSH, "Scorecard",
        [CHECKOUT | {"with": {"persist-credentials": False}},
         use("Run analysis", "ossf/scorecard-action@v2.4.1",
             {"results_file": "results.sarif", "results_format": "sarif", "publish_results": (True, False)}),
         use("Upload results", "github/codeql-action/upload-sarif", {"sarif_file": "results.sarif"})],
        permissions=READ | SARIF | {"id-token": "write"}),
    "image-scan": chore(
        ("Image scan", "Container scan", "Trivy"), (PUSH | WEEKLY, NIGHTLY, CHANGE), "Scan image",
        [CHECKOUT, run("Build image", "docker build --tag <app>:scan ."),
         use(("Scan image", "Run Trivy"), "aquasecurity/trivy-action@0.30.0",
             {"image-ref": "<app>:scan", "format": "sarif", "output": "trivy.sarif",
              "severity": (..., "CRITICAL,HIGH", "CRITICAL"), "ignore-unfixed": (..., True)}),
         use("Upload results", "github/codeql-action/upload-sarif", {"sarif_file": "trivy.sarif"})],
        permissions=READ | SARIF),
    "secret-scan": chore(
        ("Secret scan", "Leaked secrets"), (PULL, CHANGE, {"push": None}), "Scan for secrets",
        [CHECKOUT_ALL,
         (use("Run Gitleaks", "gitleaks/gitleaks-action@v2", env={"GITHUB_TOKEN": TOKEN}),
          use("Run TruffleHog", "trufflesecurity/trufflehog@main", {"extra_args": "--results=verified"}))]),
    "workflow-lint": chore(
        ("Lint workflows", "Workflow security"), on_paths(".github/**"), "Check workflows",
        [CHECKOUT | {"with": {"persist-credentials": False}},
         use("Run zizmor", "zizmorcore/zizmor-action@v0.2.0")],
        permissions=READ | SARIF),
    "spelling": chore(
        ("Spelling", "Spell check", "Typos"), (PULL, CHANGE, {"push": None}), "Spelling",
        [CHECKOUT, (use("Check spelling", "crate-ci/typos@v1", (..., {"config": ".typos.toml"})),
                    use("Check spelling", "codespell-project/actions-codespell@v2",
                        {"ignore_words_list": ("crate,fo", "nd,te"), "skip": (..., "*.svg,*.lock")}))]),
    "links": chore(
        ("Check links", "Links"), (WEEKLY | BY_HAND, WEEKLY, on_paths("**.md")), "Check links",
        [CHECKOUT, use("Check links", "lycheeverse/lychee-action@v2", {
            "args": ("--no-progress '**/*.md'", "--no-progress README.md docs"), "fail": (..., True)})]),
    "markdown": chore(
        ("Markdown", "Lint docs"), on_paths("**.md"), "Markdown",
        [CHECKOUT, use("Lint Markdown", "DavidAnson/markdownlint-cli2-action@v20", {"globs": "**/*.md"})]),
    "shellcheck": chore(
        ("ShellCheck", "Lint scripts"), (CHANGE, on_paths("**.sh")), "Shellcheck",
        [CHECKOUT,
         run("Run ShellCheck", ("git ls-files '*.sh' | xargs shellcheck", "shellcheck scripts/*.sh")),
         (..., run("Check formatting", 'docker run --rm -v "$PWD:/src" -w /src mvdan/shfmt:v3 -d .'))]),
    "pre-commit": chore(
        ("pre-commit", "Hooks"), (CHANGE, PULL), "Pre commit",
        [CHECKOUT, PYTHON,
         use("Run hooks", "pre-commit/action@v3.0.1", (..., {"extra_args": "--all-files --verbose"}))]),
    "dockerfile": chore(
        ("Lint Dockerfile", "Hadolint"), on_paths("Dockerfile", "docker/**"), "Hadolint",
        [CHECKOUT, use("Lint Dockerfile", "hadolint/hadolint-action@v3.1.0", {
            "dockerfile": ("Dockerfile", "docker/Dockerfile"), "failure-threshold": (..., "warning")})]),
    "openapi": chore(
        ("API description", "Lint API"), on_paths("openapi/**"), "Lint API",
        [CHECKOUT, setup_node(...), run("Lint", ("npx @redocly/cli lint openapi/api.yaml",
                                                 "npx @stoplight/spectral-cli lint openapi/api.yaml")),
         (..., run("Build reference", "npx @redocly/cli build-docs openapi/api.yaml --output api.html"))]),
}

# -----------------------------------------------------------------------------
# bots: issues, pull requests, release notes

PR_URL = {"PR_URL": "${{ github.event.pull_request.html_url }}"}

BOTS = {
    "stale": chore(
        ("Stale", "Close stale issues", "Mark stale issues"), (NIGHTLY, NIGHTLY | BY_HAND, WEEKLY), "Stale",
        [use("Mark stale", "actions/stale@v9", {
            "days-before-stale": (30, 60, 90), "days-before-close": (7, 14, 30),
            "stale-issue-label": (..., "stale"),
            "stale-issue-message": (..., "There was no activity for a while: this will be closed soon.",
                                    "Is this still relevant? Without a reply it will be closed."),
            "stale-pr-message": (..., "This pull request has had no activity for a while."),
            "exempt-issue-labels": (..., "pinned,security", "bug,help wanted")})],
        permissions=ISSUES | PULLS),
    "labeler": chore(
        ("Label pull requests", "Labeler", "Triage"),
        {"pull_request_target": (None, {"types": ["opened", "synchronize"]})}, "Label",
        [use("Apply labels", "actions/labeler@v5", (..., {"sync-labels": True}))], permissions=READ | PULLS),
    "lock": chore(
        ("Lock threads", "Lock old issues"), (WEEKLY, NIGHTLY), "Lock",
        [use("Lock closed threads", "dessant/lock-threads@v5", {
            "issue-inactive-days": (30, 90, 365), "process-only": (..., "issues", "issues, prs")})],
        permissions=ISSUES | PULLS, concurrency=(..., "lock-threads")),
    "greetings": chore(
        ("Greetings", "Welcome"), {"pull_request_target": {"types": ["opened"]}}, "Greet",
        [script("Welcome first-time contributors",
                "const author = context.payload.pull_request.author_association;",
                "if (!['FIRST_TIMER', 'FIRST_TIME_CONTRIBUTOR'].includes(author)) return;",
                "const issue = { ...context.repo, issue_number: context.issue.number };",
                "const body = 'Thank you for your first change!';",
                "await github.rest.issues.createComment({ ...issue, body });")],
        permissions=PULLS),
    "dependabot": chore(
        ("Dependabot auto-merge", "Auto-merge"), (PULL, {"pull_request_target": None}), "Auto merge",
        [use("Fetch metadata", "dependabot/fetch-metadata@v2", (..., {"github-token": TOKEN}), id="metadata"),
         (..., run("Approve", 'gh pr review --approve "$PR_URL"', env=PR_URL | GH_TOKEN)),
         run("Enable auto-merge",
             ('gh pr merge --auto --squash "$PR_URL"', 'gh pr merge --auto --rebase "$PR_URL"'),
             env=PR_URL | GH_TOKEN,
             when=("steps.metadata.outputs.update-type == 'version-update:semver-patch'",
                   "steps.metadata.outputs.update-type != 'version-update:semver-major'"))],
        when="github.event.pull_request.user.login == 'dependabot[bot]'", permissions=WRITE | PULLS),
    "pr-title": chore(
        ("Pull request title", "Semantic pull request"),
        {"pull_request_target": {"types": ["opened", "edited", "synchronize"]}}, "Check title",
        [use("Check title", "amannn/action-semantic-pull-request@v5",
             {"types": (..., "feat\nfix\ndocs\nchore\n"), "requireScope": (..., False)},
             env={"GITHUB_TOKEN": TOKEN})],
        permissions={"pull-requests": "read"}),
    "commits": chore(
        ("Commit messages", "Commitlint"), PULL, "Commitlint",
        [CHECKOUT_ALL, (use("Check messages", "wagoid/commitlint-github-action@v6"),
                        run("Check messages", 'npx commitlint --from "origin/$BASE" --verbose',
                            env={"BASE": "${{ github.base_ref }}"}))]),
    "release-drafter": chore(
        ("Release drafter", "Draft release notes"), (PUSH, CHANGE), "Draft release",
        [use("Update draft", "release-drafter/release-drafter@v6",
             (..., {"config-name": "release-drafter.yml"}), env={"GITHUB_TOKEN": TOKEN})],
        permissions=WRITE | PULLS),
    "changelog": chore(
        ("Changelog", "Check changelog"),
        {"pull_request": {"types": ["opened", "synchronize", "labeled", "unlabeled"]}}, "Changelog",
        [CHECKOUT_ALL,
         run("Look for an entry", 'if git diff --quiet "origin/$BASE"...HEAD -- CHANGELOG.md; then\n'
                                  '  echo "::error::Add an entry to CHANGELOG.md"\n  exit 1\nfi\n',
             env={"BASE": "${{ github.base_ref }}"})],
        when="!contains(github.event.pull_request.labels.*.name, 'skip changelog')"),
    "project": chore(
        ("Add to project", "Project board"), {"issues": {"types": ["opened", "reopened"]}}, "Add to project",
        [use("Add to project", "actions/add-to-project@v1.0.2", {
            "project-url": "https://github.com/orgs/${{ github.repository_owner }}/projects/1",
            "github-token": "${{ secrets.PROJECT_TOKEN }}", "labeled": (..., "bug, enhancement")})]),
    "command": chore(
        ("Commands", "Slash commands"), {"issue_comment": {"types": ["created"]}}, "Rebase",
        [CHECKOUT_ALL, run("Check out pull request", 'gh pr checkout "$NUMBER"',
                           env={"NUMBER": "${{ github.event.issue.number }}"} | GH_TOKEN),
         run("Rebase", BOT + "git rebase origin/<branch>\ngit push --force-with-lease\n")],
        when="github.event.issue.pull_request && github.event.comment.body == '/rebase' && "
             "github.event.comment.author_association == 'MEMBER'",
        permissions=WRITE | PULLS),
    "backport": chore(
        ("Backport", "Backport merged changes"), {"pull_request_target": {"types": ["closed", "labeled"]}},
        "Backport",
        [CHECKOUT, use("Create backports", "korthout/backport-action@v3",
                       (..., {"label_pattern": "^backport ([^ ]+)$"}))],
        when="github.event.pull_request.merged", permissions=WRITE | PULLS),
}

# -----------------------------------------------------------------------------
# infrastructure

TERRAFORM = [CHECKOUT, use(("Set up Terraform", "Install Terraform"), "hashicorp/setup-terraform@v3",
                           (..., {"terraform_version": ("1.9.8", "~1.11")})),
             (AWS, AZURE, GOOGLE), run("Initialize", ("terraform init", "terraform init -input=false"))]
INFRA = {"paths": ["infra/**", ".github/workflows/terraform.yml"]}
IN_INFRA = {"run": {"working-directory": "infra"}}

INFRASTRUCTURE = {
    "terraform-plan": chore(
        ("Terraform plan", "Plan infrastructure"), {"pull_request": INFRA}, "Plan",
        [TERRAFORM, run("Check formatting", "terraform fmt -check -recursive"),
         run("Validate", "terraform validate"),
         run("Plan", "terraform plan -no-color -input=false", id="plan"),
         (..., script("Comment on pull request",
                      "const body = '```\\n' + process.env.PLAN.slice(0, 60000) + '\\n```';",
                      "const issue = { ...context.repo, issue_number: context.issue.number };",
                      "await github.rest.issues.createComment({ ...issue, body });",
                      env={"PLAN": "${{ steps.plan.outputs.stdout }}"}))],
        permissions=IDENTITY | PULLS, defaults=IN_INFRA),
    "terraform": {
        "name": ("Terraform", "Apply infrastructure"),
        "on": ({"push": BRANCH | INFRA}, {"push": BRANCH | INFRA, "workflow_dispatch": None}),
        "permissions": IDENTITY, "concurrency": (..., "terraform"), "env": (..., {"TF_IN_AUTOMATION": True}),
        "defaults": IN_INFRA,
        "jobs": {
            "plan": job((..., "Plan"), [TERRAFORM, run("Plan", "terraform plan -out=tfplan"),
                                        upload("tfplan", "infra/tfplan")]),
            "apply": job((..., "Apply"), [TERRAFORM, download("infra", name="tfplan"),
                                          run("Apply", "terraform apply -input=false tfplan")],
                         needs="plan", environment=("production", "infrastructure"))}},
    "terraform-drift": chore(
        ("Drift detection", "Detect drift"), NIGHTLY | BY_HAND, "Drift",
        [TERRAFORM, run("Look for drift", "terraform plan -detailed-exitcode -lock=false"),
         slack("${{ matrix.stack }} differs from its configuration", "failure()")],
        permissions=IDENTITY, defaults={"run": {"working-directory": "infra/${{ matrix.stack }}"}},
        strategy=over("stack", ["network", "cluster", "database"], ["staging", "production"])),
    "tflint": chore(
        ("Lint Terraform", "TFLint"), {"pull_request": INFRA}, "Tflint",
        [CHECKOUT, use("Set up TFLint", "terraform-linters/setup-tflint@v4"),
         run("Lint", "tflint --init\ntflint --recursive --format=compact\n"),
         (..., use("Run Checkov", "bridgecrewio/checkov-action@v12", {"directory": "infra"}))]),
    "helm": chore(
        ("Helm", "Chart tests", "Lint charts"), {"pull_request": {"paths": ["charts/**"]}}, "Chart tests",
        [CHECKOUT_ALL, use("Set up Helm", "azure/setup-helm@v4"),
         use("Set up chart-testing", "helm/chart-testing-action@v2.7.0"),
         run("Lint charts", "ct lint --target-branch <branch>"),
         (..., [use("Create cluster", "helm/kind-action@v1"),
                run("Install charts", "ct install --target-branch <branch>")])]),
    "chart-release": chore(
        ("Release charts", "Publish charts"), {"push": BRANCH | {"paths": ["charts/**"]}}, "Release",
        [CHECKOUT_ALL, run("Configure Git", BOT), use("Set up Helm", "azure/setup-helm@v4"),
         use("Run chart-releaser", "helm/chart-releaser-action@v1", env={"CR_TOKEN": TOKEN})],
        permissions=WRITE),
    "ansible": chore(
        ("Ansible", "Molecule"), (CHANGE, on_paths("roles/**", "playbooks/**")), "Molecule",
        [CHECKOUT, PYTHON,
         run("Install tools", "pip install ansible-lint molecule 'molecule-plugins[docker]'"),
         run("Lint", "ansible-lint"),
         run("Test role", "molecule test", env={"MOLECULE_DISTRO": "${{ matrix.distro }}"})],
        strategy=over("distro", ["debian12", "ubuntu2404"], ["rockylinux9", "debian12"]),
        env=(..., {"PY_COLORS": 1, "ANSIBLE_FORCE_COLOR": 1})),
    "nix": chore(
        ("Nix", "Flake"), CHANGE, "Flake check",
        [CHECKOUT, use("Install Nix", "cachix/install-nix-action@v31"),
         (..., use("Set up Cachix", "cachix/cachix-action@v16",
                   {"name": "<app>", "authToken": "${{ secrets.CACHIX_AUTH_TOKEN }}"})),
         run("Check flake", ("nix flake check", "nix flake check --print-build-logs")),
         (..., run("Build", "nix build"))]),
}

# -----------------------------------------------------------------------------
# operations: started manually, on a schedule, or by other workflows

STAGE = {"environment": {"description": ("Where to deploy", "Target environment"), "type": "choice",
                         "required": True, "options": ["staging", "production"], "default": ("staging", ...)}}
AT_STAGE = {"environment": "${{ inputs.environment }}", "permissions": IDENTITY,
            "concurrency": "deploy-${{ inputs.environment }}"}
CLUSTER = (KUBECONFIG, [AWS, run("Get cluster credentials",
                                 "aws eks update-kubeconfig --name ${{ inputs.environment }}")])
PREVIEW = use("Set up flyctl", "superfly/flyctl-actions/setup-flyctl@master")

OPERATIONS = {
    "deploy": {
        "name": ("Deploy", "Manual deploy"),
        "run-name": (..., "Deploy ${{ inputs.version }} to ${{ inputs.environment }}"),
        "on": {"workflow_dispatch": {"inputs": STAGE | {"version": {
            "description": "Tag or commit", "type": "string", "required": True,
            "default": (..., "<branch>")}}}},
        "jobs": {"deploy": job((..., "Deploy"), [
            CHECKOUT | {"with": {"ref": "${{ inputs.version }}"}}, CLUSTER,
            run("Deploy", ("helm upgrade --install <app> deploy/chart --wait",
                           "kubectl apply -k deploy/base\nkubectl rollout status deployment/<app>\n"))],
            **AT_STAGE)}},
    "rollback": {
        "name": ("Rollback", "Roll back"), "run-name": (..., "Roll back ${{ inputs.environment }}"),
        "on": {"workflow_dispatch": {"inputs": STAGE | {"revision": {
            "description": "Revision to return to, 0 for the one before", "type": "number", "default": 0}}}},
        "jobs": {"rollback": job((..., "Roll back"), [
            CLUSTER,
            run("Roll back", ('helm rollback <app> "$REVISION" --wait',
                              'kubectl rollout undo deployment/<app> --to-revision="$REVISION"'),
                env={"REVISION": "${{ inputs.revision }}"}),
            (..., slack("<app> was rolled back in ${{ inputs.environment }}", "success()"))], **AT_STAGE)}},
    "migrate": chore(
        ("Migrate database", "Run migrations"),
        {"workflow_dispatch": {"inputs": STAGE | {"dry-run": {
            "description": "Only show what would be done", "type": "boolean", "default": (True, False)}}}},
        "Migrate",
        [CHECKOUT, run("Show pending migrations", "docker compose run --rm app migrate status"),
         run("Migrate", "docker compose run --rm app migrate up", when="${{ !inputs.dry-run }}")],
        env={"DATABASE_URL": "${{ secrets.DATABASE_URL }}"}, environment="${{ inputs.environment }}"),
    "backup": chore(
        ("Backup", "Database backup", "Nightly backup"), NIGHTLY | BY_HAND, "Backup",
        [AWS, run("Dump database", 'pg_dump --format=custom --file=<app>.dump "$DATABASE_URL"',
                  env={"DATABASE_URL": "${{ secrets.DATABASE_URL }}"}),
         run("Upload", 'aws s3 cp <app>.dump "s3://<app>-backups/$(date +%F).dump"'),
         slack("Backup of <app> failed", "failure()")],
        permissions=IDENTITY, environment=("production", ...)),
    "cache-cleanup": chore(
        ("Clean up caches", "Delete caches"), {"pull_request": {"types": ["closed"]}}, "Clean up",
        [run("Delete caches of the branch",
             'gh cache list --ref "$REF" --json id --jq ".[].id" | xargs -r -n 1 gh cache delete',
             env=GH_TOKEN | {"GH_REPO": "${{ github.repository }}",
                             "REF": "refs/pull/${{ github.event.pull_request.number }}/merge"})],
        permissions={"actions": "write"}),
    "preview": {
        "name": ("Preview", "Pull request preview"),
        "on": {"pull_request": {"types": ["opened", "synchronize", "reopened", "closed"]}},
        "permissions": READ | PULLS, "concurrency": "preview-${{ github.event.number }}",
        "env": {"PREVIEW": "<app>-pr-${{ github.event.number }}",
                "FLY_API_TOKEN": "${{ secrets.FLY_API_TOKEN }}"},
        "jobs": {
            "deploy": job((..., "Deploy preview"), [
                CHECKOUT, PREVIEW, run("Create app", 'flyctl apps create "$PREVIEW" || true'),
                run("Deploy", 'flyctl deploy --app "$PREVIEW" --remote-only'),
                (..., run("Comment", 'gh pr comment "$PR_URL" --body "Preview of $GITHUB_SHA: $PREVIEW"',
                          env=GH_TOKEN | PR_URL))], when="github.event.action != 'closed'"),
            ("cleanup", "destroy"): job((..., "Remove preview"), [
                PREVIEW, run("Remove app", 'flyctl apps destroy "$PREVIEW" --yes')],
                when="github.event.action == 'closed'")}},
    "data-refresh": chore(
        ("Refresh data", "Update data"), NIGHTLY | BY_HAND, "Refresh data",
        [CHECKOUT, PYTHON, run("Install dependencies", "pip install -r requirements.txt"),
         run("Fetch data", ("python scripts/fetch.py --output data/", "python -m refresh data")),
         (use("Open pull request", "peter-evans/create-pull-request",
              {"commit-message": "Refresh data", "title": "Refresh data", "branch": "refresh-data"}),
          run("Commit", BOT + "git add data\n"
                              "git diff --staged --quiet || git commit -m 'Refresh data'\ngit push\n"))],
        permissions=WRITE | PULLS),
    "after-ci": chore(
        ("Report failures", "Watch CI"),
        {"workflow_run": {"workflows": (["CI"], ["CI", "Release"]), "types": ["completed"], **BRANCH}},
        "Report",
        [run("Open issue", 'gh issue create --title "$NAME failed" --body "$URL" --label ci',
             env=GH_TOKEN | {"GH_REPO": "${{ github.repository }}",
                             "NAME": "${{ github.event.workflow_run.name }}",
                             "URL": "${{ github.event.workflow_run.html_url }}"})],
        when="github.event.workflow_run.conclusion == 'failure'", permissions=ISSUES),
    "major-tag": chore(
        ("Move major tag", "Update major version"), {"release": {"types": ["published"]}}, "Tag",
        [CHECKOUT, run("Move tag", BOT + 'major="${GITHUB_REF_NAME%%.*}"\ngit tag --force "$major"\n'
                                         'git push --force origin "$major"\n')],
        when=(..., "${{ !github.event.release.prerelease }}"), permissions=WRITE),
}

# -----------------------------------------------------------------------------
# builds and tests of special kinds

NODE = [CHECKOUT, setup_node("npm"), run("Install dependencies", "npm ci")]
GO = use("Set up Go", "actions/setup-go", {"go-version-file": "go.mod"})
JAVA = [CHECKOUT, use("Set up JDK", "actions/setup-java", {"distribution": "temurin", "java-version": 21}),
        use("Set up Gradle", "gradle/actions/setup-gradle")]
CHANGED = use(("Find changes", "Filter paths"), "dorny/paths-filter@v3",
              {"filters": "api:\n  - 'api/**'\nweb:\n  - 'web/**'\n"}, id="changes")
SHARED = "./.github/workflows/"


def track(tool) -> dict:
    """Return a step that stores the result of a benchmark."""
    return use("Store result", "benchmark-action/github-action-benchmark@v1", {
        "tool": tool, "output-file-path": "bench.txt", "github-token": TOKEN, "auto-push": True,
        "alert-threshold": (..., "150%")})


BUILDS = {
    "hello": chore(
        ("Hello", "Greeting", "First workflow"), ({"push": None}, BY_HAND), "Greet",
        [run("Say hello", ('echo "Hello, $GITHUB_ACTOR!"', "echo 'Hello, world!'"))]),
    "make": chore(
        ("CI", "Make", "Build"), (CHANGE, {"push": None}, {"push": None, "pull_request": None}), "Build",
        [CHECKOUT, run("Build", ("make", "make all", "./configure\nmake -j4\n")),
         (..., run("Test", ("make test", "make check")))]),
    "monorepo": {
        "name": ("CI", "Monorepo"), "on": CHANGE, "jobs": {
            "changes": job((..., "Find changes"), [CHECKOUT, CHANGED],
                           permissions={"contents": "read", "pull-requests": "read"},
                           outputs={"api": "${{ steps.changes.outputs.api }}",
                                    "web": "${{ steps.changes.outputs.web }}"}),
            "api": job((..., "Test API"), [
                CHECKOUT, use("Set up Go", "actions/setup-go", {"go-version-file": "api/go.mod"}),
                run("Test", "go test ./...")], needs="changes", when="needs.changes.outputs.api == 'true'",
                defaults={"run": {"working-directory": "api"}}),
            "web": job((..., "Test web"), [
                CHECKOUT, WithWords(setup_node("npm", "package-lock.json"), {"dir": "web"}),
                run("Install dependencies", "npm ci"), run("Test", "npm test")],
                needs="changes", when="needs.changes.outputs.web == 'true'",
                defaults={"run": {"working-directory": "web"}})}},
    "dynamic-matrix": {
        "name": ("Packages", "Test packages"), "on": CHANGE, "jobs": {
            "list": job((..., "List packages"), [
                CHECKOUT, run("List packages", "packages=$(ls packages | jq -R . | jq -sc .)\n"
                                               'echo "packages=$packages" >> "$GITHUB_OUTPUT"\n', id="list")],
                outputs={"packages": "${{ steps.list.outputs.packages }}"}),
            "test": job("Test ${{ matrix.package }}", [
                NODE, run("Test", "npm test --workspace packages/${{ matrix.package }}")], needs="list",
                strategy=over("package", "${{ fromJSON(needs.list.outputs.packages) }}"))}},
    "shared": {
        "name": ("CI/CD", "Main"), "on": (PUSH, CHANGE), "jobs": {
            "lint": {"uses": SHARED + "lint.yml"},
            "test": {"uses": SHARED + "test.yml", "with": (..., {"version": "22"}), "secrets": "inherit"},
            "build": {"needs": ["lint", "test"], "uses": SHARED + "build.yml", "with": {"artifact": "<app>"}},
            "deploy": {"needs": "build", "if": "github.ref == 'refs/heads/<branch>'", "permissions": IDENTITY,
                       "uses": SHARED + "deploy.yml",
                       "with": {"environment": ("staging", "production"), "artifact": "<app>"},
                       "secrets": {"deploy-token": "${{ secrets.DEPLOY_TOKEN }}"}}}},
    "release-please": {
        "name": ("Release please", "Releases"), "on": PUSH, "permissions": WRITE | PULLS,
        "jobs": {
            "release": job((..., "Prepare release"), [
                use("Run release-please", "googleapis/release-please-action@v4",
                    {"release-type": ("node", "python", "go", "simple")}, id="release")],
                outputs={"created": "${{ steps.release.outputs.release_created }}",
                         "tag": "${{ steps.release.outputs.tag_name }}"}),
            "publish": {"needs": "release", "if": "needs.release.outputs.created == 'true'",
                        "uses": SHARED + "publish.yml", "with": {"tag": "${{ needs.release.outputs.tag }}"},
                        "secrets": "inherit"}}},
    "playwright": {
        "name": ("End-to-end tests", "Playwright"), "on": CHANGE, "jobs": {
            "e2e": job((..., "Shard ${{ matrix.shard }}"), [
                NODE, run("Install browsers", "npx playwright install --with-deps"),
                run("Run tests", "npx playwright test --shard=${{ matrix.shard }}/4"),
                upload("report-${{ matrix.shard }}", "blob-report/") | {"if": "${{ !cancelled() }}"}],
                strategy=over("shard", [1, 2, 3, 4])),
            "report": (..., job((..., "Merge reports"), [
                NODE, download("reports", pattern="report-*", **{"merge-multiple": True}),
                run("Merge", "npx playwright merge-reports --reporter html reports"),
                upload("html-report", "playwright-report/")], needs="e2e", when="${{ !cancelled() }}"))}},
    "cypress": chore(
        ("Cypress", "Browser tests"), (CHANGE, PULL), "Cypress",
        [CHECKOUT, use("Run Cypress", "cypress-io/github-action@v6", {
            "build": "npm run build", "start": "npm start", "wait-on": "http://localhost:3000",
            "browser": "${{ matrix.browser }}"}),
         upload("screenshots-${{ matrix.browser }}", "cypress/screenshots") | {"if": "failure()"}],
        strategy=over("browser", ["chrome", "firefox"], ["chrome", "edge", "electron"])),
    "android": {
        "name": ("Android", "Android CI"), "on": CHANGE, "jobs": {
            "build": job((..., "Build"), [
                JAVA, run("Lint", "./gradlew lintDebug"), run("Unit tests", "./gradlew testDebugUnitTest"),
                run("Build APK", "./gradlew assembleDebug"),
                upload("apk", "app/build/outputs/apk/debug/*.apk")]),
            "device": (..., job((..., "Test on API ${{ matrix.api }}"), [
                JAVA, use("Run instrumented tests", "reactivecircus/android-emulator-runner@v2", {
                    "api-level": "${{ matrix.api }}", "arch": "x86_64",
                    "script": "./gradlew connectedCheck"})],
                needs="build", strategy=over("api", [29, 34], [30, 33, 35])))}},
    "ios": chore(
        ("iOS", "iOS tests"), CHANGE, "Build and test",
        [CHECKOUT, (..., run("Select Xcode", "sudo xcode-select -s /Applications/Xcode_16.2.app")),
         (..., use("Cache packages", "actions/cache",
                   {"path": "SourcePackages", "key": "spm-${{ hashFiles('**/Package.resolved') }}"})),
         run("Test", "xcodebuild test \\\n  -scheme App \\\n"
                     "  -destination 'platform=iOS Simulator,name=iPhone 16'\n")],
        runs_on=("macos-15", "macos-latest")),
    "goreleaser": chore(
        ("Release", "GoReleaser"), ON_TAG, "Release",
        [CHECKOUT_ALL, GO, (..., GHCR),
         use("Run GoReleaser", "goreleaser/goreleaser-action@v6",
             {"version": ("latest", "~> v2"), "args": "release --clean"}, env={"GITHUB_TOKEN": TOKEN})],
        permissions=WRITE | {"packages": "write"}),
    "wheels": {
        "name": ("Wheels", "Build wheels"), "on": (ON_TAG, {"release": {"types": ["published"]}}), "jobs": {
            "build": job("Wheels on ${{ matrix.os }}", [
                CHECKOUT, use("Build wheels", "pypa/cibuildwheel@v2.23.3",
                              env=(..., {"CIBW_SKIP": "pp* *-musllinux*"})),
                upload("wheels-${{ matrix.os }}", "wheelhouse/*.whl")], runs_on="${{ matrix.os }}",
                strategy=over("os", ["ubuntu-latest", "macos-14", "windows-latest"],
                              ["ubuntu-latest", "ubuntu-24.04-arm", "macos-latest"])),
            "sdist": job((..., "Source distribution"), [
                CHECKOUT, run("Build", "pipx run build --sdist"), upload("wheels-sdist", "dist/*.tar.gz")]),
            "publish": job((..., "Publish"), [
                download("dist", pattern="wheels-*", **{"merge-multiple": True}),
                use("Publish to PyPI", "pypa/gh-action-pypi-publish@release/v1")],
                needs=["build", "sdist"], environment="release", permissions={"id-token": "write"})}},
    "rust-targets": chore(
        ("Cross build", "Build targets"), (CHANGE, ON_TAG), "Cross build",
        [CHECKOUT, use("Install Rust", "dtolnay/rust-toolchain@stable", {"targets": "${{ matrix.target }}"}),
         use("Install cross", "taiki-e/install-action@v2", {"tool": "cross"}),
         run("Build", "cross build --release --target ${{ matrix.target }}"),
         upload("<app>-${{ matrix.target }}", "target/${{ matrix.target }}/release/<app>")],
        strategy=over("target", ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"],
                      ["x86_64-unknown-linux-gnu", "armv7-unknown-linux-gnueabihf"])),
    "compose": chore(
        ("Smoke test", "Compose"), (CHANGE, PULL), "Smoke test",
        [CHECKOUT, run("Start services", "docker compose up --build --detach --wait"),
         run("Probe", "curl --fail --retry 10 --retry-connrefused http://localhost:8080/healthz"),
         run("Show logs", "docker compose logs --no-color", when="failure()"),
         (..., run("Stop services", "docker compose down --volumes", when="always()"))]),
    "benchmark": chore(
        ("Benchmarks", "Performance"), (PUSH, PUSH | BY_HAND), "Benchmark",
        [CHECKOUT, ([GO, run("Run benchmarks", "go test -run '^$' -bench . ./... | tee bench.txt"),
                     track("go")],
                    [use("Install Rust", "dtolnay/rust-toolchain@stable"),
                     run("Run benchmarks", "cargo bench -- --output-format bencher | tee bench.txt"),
                     track("cargo")])],
        permissions=WRITE),
    "train": chore(
        ("Train model", "Training"), {"workflow_dispatch": {"inputs": {
            "epochs": {"description": "Number of epochs", "type": "number", "default": (3, 10)},
            "config": {"description": "Configuration", "type": "string", "default": "configs/base.yaml"}}}},
        "Train",
        [CHECKOUT, use("Install uv", "astral-sh/setup-uv"),
         run("Install dependencies", "uv sync --extra gpu"),
         run("Train", 'uv run python train.py --config "$CONFIG" --epochs "$EPOCHS" --output runs/latest',
             env={"CONFIG": "${{ inputs.config }}", "EPOCHS": "${{ inputs.epochs }}"}),
         upload("model", "runs/latest/")],
        runs_on=["self-hosted", "linux", "gpu"], **{"timeout-minutes": (360, 720)}),
    "firmware": chore(
        ("Firmware", "PlatformIO"), CHANGE, "Build firmware",
        [CHECKOUT, use("Cache toolchains", "actions/cache",
                       {"path": "~/.platformio", "key": "pio-${{ hashFiles('platformio.ini') }}"}),
         PYTHON, run("Install PlatformIO", "pip install platformio"),
         run("Build", "pio run --environment ${{ matrix.board }}"),
         (..., run("Unit tests", "pio test --environment native"))],
        strategy=over("board", ["esp32dev", "nodemcuv2"], ["uno", "esp32dev", "pico"])),
    "paper": chore(
        ("Paper", "Build PDF"), ({"push": None}, PUSH, {"push": {"paths": ["paper/**"]}}), "Build PDF",
        [CHECKOUT, use("Compile LaTeX", "xu-cheng/latex-action@v3",
                       {"root_file": "main.tex", "working_directory": "paper"}),
         upload("paper", "paper/main.pdf")]),
    "action-test": chore(
        ("Test action", "CI"), CHANGE, "Test action",
        [NODE, run("Build", "npm run build"),
         run("Check that dist is up to date", "git diff --exit-code dist"),
         use("Run the action", "./", {"token": "${{ github.token }}"}, id="action"),
         run("Check output", 'test -n "$RESULT"', env={"RESULT": "${{ steps.action.outputs.result }}"})]),
}

CHORES = SCANS | BOTS | INFRASTRUCTURE | OPERATIONS | BUILDS
