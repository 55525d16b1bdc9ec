"""Define the recipes of synthetic workflows: what projects do with their toolchain or their site.

A recipe returns a template (see `parts`), or None if the toolchain does not support it.
"""

from workflow_synth.parts import (
    AWS,
    AZURE,
    BRANCH,
    CHECKOUT,
    GH_TOKEN,
    GHCR,
    GOOGLE,
    IDENTITY,
    KUBECONFIG,
    READ,
    RUBY,
    TAGS,
    WRITE,
    Tool,
    WithWords,
    download,
    job,
    run,
    setup_node,
    slack,
    upload,
    use,
)

# Ids of jobs: a workflow uses the same choice wherever it names the job.
TEST, LINT, BUILD = ("test", "tests", "unit-tests"), ("lint", "checks", "quality"), ("build", "package")
GUARDS = {
    "permissions": (..., READ),
    "concurrency": (..., ..., {"group": ("${{ github.workflow }}-${{ github.ref }}", "ci-${{ github.ref }}"),
                               "cancel-in-progress": (True, "${{ github.event_name == 'pull_request' }}")}),
}


def on_change(tool: Tool) -> tuple:
    """Return the events that start a check of the tool's sources."""
    no_docs, sources = {"paths-ignore": ["docs/**", "**.md"]}, {"paths": tool.paths}
    return (
        {"push": BRANCH, "pull_request": BRANCH},
        {"push": BRANCH, "pull_request": None},
        {"push": BRANCH, "pull_request": None, "workflow_dispatch": None},
        {"push": None, "pull_request": None},
        {"pull_request": None, "push": BRANCH, "merge_group": None},
        {"push": {"branches": ["<branch>", "release/**"]} | no_docs, "pull_request": no_docs},
        {"push": BRANCH | sources, "pull_request": sources},
        {"push": BRANCH, "pull_request": {"types": ["opened", "synchronize", "ready_for_review"]}},
        {"push": {"branches-ignore": ["gh-pages", "dependabot/**"]}},
        {"push": BRANCH, "pull_request": None, "schedule": [{"cron": "<weekly>"}]},
    )


def ready(tool: Tool) -> list:
    """Return the steps after which the tool's commands work."""
    return [CHECKOUT, tool.setup, tool.install]


def matrix(tool: Tool) -> str:
    """Return the expression of the tool's matrix variable."""
    return "${{ matrix.%s }}" % tool.key


def lint_job(tool):
    return job((..., "Lint"), [ready(tool), tool.lint])


def test_job(tool, **keys):
    return job((..., "Test"), [ready(tool), tool.test], **keys)


def matrix_job(tool):
    tests = job((..., f"<language> {matrix(tool)}"), [ready(tool), tool.test],
                strategy={"fail-fast": (False, ...), "max-parallel": (..., ..., 2),
                          "matrix": {tool.key: (list(tool.versions), list(tool.versions[-2:]))}})
    return WithWords(tests, {"version": matrix(tool)})


# -----------------------------------------------------------------------------
# checks of the sources

def ci(tool):
    steps = [ready(tool), (tool.lint, ...), (tool.test, tool.coverage or tool.test)]
    return {"name": ("CI", "<language> CI", "Tests", "Test"), "on": on_change(tool), **GUARDS,
            "jobs": {TEST: job((..., "Test"), steps)}}


def lint(tool):
    return {"name": ("Lint", "Code quality", "Checks"), "on": ({"pull_request": None}, on_change(tool)),
            **GUARDS, "jobs": {LINT: lint_job(tool)}}


def versions(tool):
    return {"name": ("Tests", "CI", "Test matrix"), "on": on_change(tool), **GUARDS,
            "jobs": {LINT: (..., lint_job(tool)), TEST: matrix_job(tool)}}


def platforms(tool):
    if not tool.portable:
        return None
    linux, windows, mac = systems = ["ubuntu-latest", "windows-latest", "macos-latest"]
    every, oldest, newest = list(tool.versions), {tool.key: tool.versions[0]}, {tool.key: tool.versions[-1]}
    combinations = (
        {"os": systems, tool.key: every},
        {tool.key: every[-2:], "os": systems},
        {"os": systems, tool.key: every, "exclude": [{"os": windows, **oldest}]},
        {tool.key: every, "os": systems, "exclude": [{"os": windows, **oldest}, {"os": mac, **oldest}]},
        {"os": [linux], tool.key: every, "include": [{"os": windows, **newest}, {"os": mac, **newest}]},
        {"include": [{"os": linux, **oldest}, *({"os": system, **newest} for system in systems)]},
    )
    tests = job((..., matrix(tool) + " on ${{ matrix.os }}"), [ready(tool), tool.test],
                runs_on="${{ matrix.os }}",
                strategy={"fail-fast": (False, False, ...), "matrix": combinations})
    return {"name": ("CI", "Tests", "Cross-platform tests"), "on": on_change(tool), **GUARDS,
            "jobs": {TEST: WithWords(tests, {"version": matrix(tool)})}}


def pipeline(tool):
    tests = job((..., "Test"), [ready(tool), (tool.test, tool.coverage or tool.test)], needs=(..., LINT))
    build = job((..., "Build"), [ready(tool), tool.build, upload("<app>", tool.artifact)],
                needs=([LINT, TEST], TEST))
    gate = job("All checks passed", [
        (run("Check results", "exit ${{ contains(needs.*.result, 'failure') && 1 || 0 }}"),
         use("Check results", "re-actors/alls-green@release/v1", {"jobs": "${{ toJSON(needs) }}"}))],
        needs=[LINT, TEST, BUILD], when="always()")
    return {"name": ("CI", "Build and test", "<language> pipeline"), "on": on_change(tool), **GUARDS,
            "jobs": {LINT: lint_job(tool), TEST: tests, BUILD: build, ("all-green", "ci-ok"): (..., gate)}}


def coverage(tool):
    return tool.coverage and {
        "name": ("Coverage", "Code coverage", "Test coverage"), "on": on_change(tool), **GUARDS,
        "jobs": {"coverage": job((..., "Measure coverage"), [ready(tool), tool.coverage])}}


def service(image, port, options=..., **env):
    """Return a service container that listens on the runner's `port`."""
    return {"image": image, "env": env or ..., "ports": [f"{port}:{port}"], "options": options}


HEALTH = " --health-interval 10s --health-timeout 5s --health-retries 5"
POSTGRES = service(("postgres:16", "postgres:17-alpine"), 5432, "--health-cmd pg_isready" + HEALTH,
                   POSTGRES_PASSWORD="postgres", POSTGRES_DB="app_test")
POSTGRES_URL = "postgres://postgres:postgres@localhost:5432/app_test"
MYSQL = service(("mysql:8.0", "mysql:8.4"), 3306, '--health-cmd "mysqladmin ping"' + HEALTH,
                MYSQL_ROOT_PASSWORD="root", MYSQL_DATABASE="app_test")
MYSQL_URL = "mysql://root:root@127.0.0.1:3306/app_test"
REDIS = service(("redis:7", "redis:7-alpine", "valkey/valkey:8"), 6379,
                (..., '--health-cmd "redis-cli ping"' + HEALTH))
SEARCH = service("opensearchproject/opensearch:2", 9200, **{"discovery.type": "single-node"})
SERVERS = (
    {"services": {("postgres", "db"): POSTGRES}, "env": {"DATABASE_URL": POSTGRES_URL}},
    {"services": {"mysql": MYSQL}, "env": {"DATABASE_URL": MYSQL_URL}},
    {"services": {"postgres": POSTGRES, "redis": REDIS},
     "env": {"DATABASE_URL": POSTGRES_URL, "REDIS_URL": "redis://localhost:6379/0"}},
    {"services": {"mysql": MYSQL, "rabbitmq": service("rabbitmq:4", 5672)},
     "env": {"DATABASE_URL": MYSQL_URL, "AMQP_URL": "amqp://guest:guest@localhost:5672"}},
    {"services": {"postgres": POSTGRES, "opensearch": SEARCH},
     "env": {"DATABASE_URL": POSTGRES_URL, "SEARCH_URL": "http://localhost:9200"}},
)


def integration(tool):
    migrate = run(("Prepare database", "Run migrations", "Migrate database"), tool.migrate)
    tests = job((..., "Integration tests"), [ready(tool), migrate, tool.test])
    return tool.migrate and {
        "name": ("Integration tests", "Integration", "Backend tests"), "on": on_change(tool), **GUARDS,
        "jobs": {("integration", "integration-tests"): tests | {...: SERVERS}}}


def container(tool):
    if not tool.image:
        return None
    tests = job((..., "Test in container"), [CHECKOUT, tool.install, tool.test],
                container=(tool.image, {"image": tool.image, "options": (..., "--user root")}))
    if "<version>" in tool.image:
        every = {"strategy": {"matrix": {tool.key: list(tool.versions)}}}
        tests = WithWords(tests | every, {"version": matrix(tool)})
    return {"name": ("CI", "Container tests", "Tests in container"), "on": on_change(tool), **GUARDS,
            "jobs": {TEST: tests}}


def component(tool):
    """Check one folder of a repository."""
    changes = {"paths": ["<dir>/**", ".github/workflows/<app>.yml"]}
    inside = {"defaults": {"run": {"working-directory": "<dir>"}}}
    return tool.migrate and WithWords({
        "name": ("<app>", "Test <app>", "<app> CI"),
        "on": ({"push": BRANCH | changes, "pull_request": changes}, {"pull_request": changes}),
        ...: (inside | {"jobs": {TEST: test_job(tool)}}, {"jobs": {"<app>": test_job(tool, **inside)}}),
    }, {"dir": ("services/<app>", "packages/<app>", "apps/<app>")})


def reusable(tool):
    version = {tool.key: {"description": f"Which {tool.key.replace('-', ' ')} to use", "type": "string",
                          "required": (False, ...), "default": str(tool.versions[-1])}}
    lints = {"lint": {"description": "Whether to run the linters", "type": "boolean", "default": True}}
    artifact = {"artifact": {"description": "Name of the artifact", "type": "string", "required": True}}
    commit = {"commit": {"description": "Commit that was built", "value": "${{ jobs.build.outputs.commit }}"}}
    note = run("Note commit", 'echo "sha=$(git rev-parse --short HEAD)" >> "$GITHUB_OUTPUT"', id="commit")
    keep = upload("${{ inputs.artifact }}", tool.artifact)
    build = job((..., "Build"), [ready(tool), note, tool.build, keep],
                outputs={"commit": "${{ steps.commit.outputs.sha }}"})
    return WithWords((
        {"name": ("Reusable <language> tests", "Test (reusable)"),
         "on": {"workflow_call": {"inputs": version}}, "jobs": {TEST: test_job(tool)}},
        {"name": ("Reusable <language> checks", "Shared checks"),
         "on": {"workflow_call": {"inputs": version | lints}},
         "jobs": {"lint": lint_job(tool) | {"if": "inputs.lint"}, "test": test_job(tool)}},
        {"name": ("Reusable build", "Build <language> package"),
         "on": {"workflow_call": {"inputs": artifact | version, "outputs": commit}},
         "jobs": {"build": build}},
    ), {"version": "${{ inputs.%s }}" % tool.key})


# -----------------------------------------------------------------------------
# releases

def release(tool):
    create = (
        use(("Create release", "Publish release"), "softprops/action-gh-release@v2",
            {"files": "<files>", "generate_release_notes": (True, ...)}),
        run("Create release", 'gh release create "$GITHUB_REF_NAME" <files> --generate-notes',
            env=GH_TOKEN | {"GH_REPO": "${{ github.repository }}"}),
    )
    if tool.native:
        folder, _, program = tool.artifact.rpartition("/")
        archive = "<app>-${{ matrix.target }}.tar.gz"
        systems = [("ubuntu-latest", "linux-x64"), ("ubuntu-24.04-arm", "linux-arm64"),
                   ("macos-latest", "macos-arm64")]
        if tool.portable and not program:  # a single program has another name on Windows
            systems.append(("windows-latest", "windows-x64"))
        build = job((..., "Build for ${{ matrix.target }}"), [
            ready(tool), tool.build,
            run(("Pack", "Create archive"), f"tar -czf {archive} -C {folder} {program or '.'}"),
            upload("<app>-${{ matrix.target }}", archive)], runs_on="${{ matrix.os }}",
            strategy={"fail-fast": (False, ...),
                      "matrix": {"include": [{"os": os, "target": target} for os, target in systems]}})
        release = job((..., "Create release"), [download("dist", **{"merge-multiple": True}), create],
                      needs="build", permissions=WRITE)
        jobs, files = {"build": build, "release": release}, "dist/*"
    elif "*" in tool.artifact or tool.language == "Python":
        steps = [ready(tool), (tool.test, ...), tool.build, create]
        jobs = {"release": job((..., "Create release"), steps, permissions=WRITE)}
        files = tool.artifact + ("*" if tool.artifact.endswith("/") else "")
    else:
        return None
    name = ("Release", "Create release", "Release <app>")
    return WithWords({"name": name, "on": {"push": TAGS}, "jobs": jobs}, {"files": files})


def publish(tool):
    keys = {"permissions": IDENTITY, "environment": ("release", ...)}
    published = {"release": {"types": ["published"]}}
    return tool.publish and {
        "name": ("Publish", "Publish package", "Publish to registry"),
        "on": (published, {"push": TAGS}, published | {"workflow_dispatch": None}),
        "jobs": ({"publish": job((..., "Publish"), [ready(tool), (tool.test, ...), tool.publish], **keys)},
                 {"test": test_job(tool),
                  "publish": job((..., "Publish"), [ready(tool), tool.publish], needs="test", **keys)})}


def image(tool):
    hub = use("Log in to Docker Hub", "docker/login-action@v3",
              {"username": "${{ vars.DOCKERHUB_USERNAME }}", "password": "${{ secrets.DOCKERHUB_TOKEN }}"})
    tags = "type=ref,event=branch\ntype=semver,pattern={{version}}\ntype=sha\n"
    build = {"context": ".", "push": "${{ github.event_name != 'pull_request' }}",
             "tags": "${{ steps.meta.outputs.tags }}", "labels": (..., "${{ steps.meta.outputs.labels }}"),
             "platforms": (..., "linux/amd64,linux/arm64"),
             ...: ({}, {"cache-from": "type=gha", "cache-to": "type=gha,mode=max"})}

    def push(login, name, **keys):
        return job((..., "Build and push image"), [
            CHECKOUT, (use("Set up QEMU", "docker/setup-qemu-action@v3"), ...),
            use(("Set up Buildx", "Set up Docker Buildx"), "docker/setup-buildx-action@v3"),
            login | {"if": "github.event_name != 'pull_request'"},
            use(("Extract metadata", "Docker metadata"), "docker/metadata-action@v5",
                {"images": name, "tags": (..., tags)}, id="meta"),
            use(("Build and push", "Build image"), "docker/build-push-action", build)], needs=TEST, **keys)

    return tool.migrate and {
        "name": ("Docker", "Build image", "Container image"),
        "on": {"push": BRANCH | TAGS, "pull_request": None},
        "jobs": {TEST: test_job(tool), ("image", "docker"): (
            push(GHCR, "ghcr.io/${{ github.repository }}", permissions=READ | {"packages": "write"}),
            push(hub, "${{ vars.DOCKERHUB_USERNAME }}/<app>"))}}


# -----------------------------------------------------------------------------
# scheduled

def nightly(tool):
    on = {"schedule": [{"cron": "<nightly>"}], "workflow_dispatch": (None, ...)}
    issue = run("Open issue", 'gh issue create --title "$GITHUB_WORKFLOW failed" --label bug \\\n'
                              '  --body "See run $GITHUB_RUN_ID on $GITHUB_REF_NAME"\n',
                when="failure()", env=GH_TOKEN)
    alert = slack("${{ github.workflow }} failed on ${{ github.ref_name }}", "failure()")
    name, tests = (..., "Nightly tests"), [ready(tool), tool.test]
    return {"name": ("Nightly", "Nightly tests", "Scheduled tests"), "on": on, "jobs": {("nightly", "test"): (
        job(name, [tests, alert], when=(..., "github.repository == 'acme/<app>'")),
        job(name, [tests, issue], permissions={"contents": "read", "issues": "write"}))}}


def audit(tool):
    weekly = {"schedule": [{"cron": "<weekly>"}]}
    return tool.audit and {
        "name": ("Security audit", "Audit", "Audit dependencies"),
        "on": (weekly, weekly | {"push": {"paths": tool.paths[-2:]}}, weekly | {"workflow_dispatch": None}),
        "permissions": (..., READ), "jobs": {"audit": job((..., "Audit"), [ready(tool), tool.audit])}}


def update(tool):
    title = ("Update <language> dependencies", "chore(deps): update <language> dependencies")
    propose = use(("Open pull request", "Create pull request"), "peter-evans/create-pull-request",
                  {"commit-message": title, "title": title, "branch": ("automation/deps", "update-deps"),
                   "labels": (..., "dependencies"), "delete-branch": (True, ...)})
    return tool.update and {
        "name": ("Update dependencies", "Dependency updates"),
        "on": {"schedule": [{"cron": "<weekly>"}], "workflow_dispatch": None},
        "permissions": WRITE | {"pull-requests": "write"},
        "jobs": {("update", "update-dependencies"): job((..., "Update dependencies"), [
            CHECKOUT, tool.setup, run("Update dependencies", tool.update), propose])}}


# -----------------------------------------------------------------------------
# deploying a service: title, permissions, steps for <stage>; a cluster pulls the image of an earlier job

CLUSTERS = (
    ("Kubernetes", READ, [
        use("Set up Helm", "azure/setup-helm@v4"), KUBECONFIG,
        run(("Deploy chart", "Upgrade release"),
            "helm upgrade --install <app> deploy/chart \\\n  --namespace <stage> --create-namespace \\\n"
            '  --values deploy/values-<stage>.yaml \\\n  --set image.tag="$GITHUB_SHA" --wait\n')]),
    ("EKS", IDENTITY, [
        AWS, run("Get cluster credentials", "aws eks update-kubeconfig --name <stage>"),
        run("Deploy", "kubectl apply -k deploy/overlays/<stage>\n"
                      'kubectl set image deployment/<app> "<app>=ghcr.io/$GITHUB_REPOSITORY:$GITHUB_SHA"\n'
                      "kubectl rollout status deployment/<app> --timeout=180s\n")]),
    ("GKE", IDENTITY, [
        GOOGLE, use("Get cluster credentials", "google-github-actions/get-gke-credentials@v2",
                    {"cluster_name": "<stage>", "location": "europe-west1"}),
        run("Deploy", "kubectl -n <app> set image deployment/<app> "
                      "<app>=ghcr.io/${{ github.repository }}:${{ github.sha }}\n"
                      "kubectl -n <app> rollout status deployment/<app>\n")]),
    ("Azure Web App", IDENTITY, [
        AZURE, use("Deploy to Azure Web App", "azure/webapps-deploy@v3",
                   {"app-name": "<app>-<stage>",
                    "images": "ghcr.io/${{ github.repository }}:${{ github.sha }}"})]),
)
TARGETS = (
    ("Amazon ECS", IDENTITY, [
        AWS, use("Log in to Amazon ECR", "aws-actions/amazon-ecr-login@v2", id="ecr"),
        run("Build and push image", 'docker build -t "$IMAGE" .\ndocker push "$IMAGE"\n'
                                    'echo "image=$IMAGE" >> "$GITHUB_OUTPUT"\n', id="image",
            env={"IMAGE": "${{ steps.ecr.outputs.registry }}/<app>:${{ github.sha }}"}),
        use("Fill in task definition", "aws-actions/amazon-ecs-render-task-definition@v1",
            {"task-definition": "deploy/<stage>.json", "container-name": "<app>",
             "image": "${{ steps.image.outputs.image }}"}, id="task"),
        use("Deploy to ECS", "aws-actions/amazon-ecs-deploy-task-definition@v2",
            {"task-definition": "${{ steps.task.outputs.task-definition }}", "service": "<app>",
             "cluster": "<stage>", "wait-for-service-stability": True})]),
    ("AWS Lambda", IDENTITY, [
        use("Set up SAM", "aws-actions/setup-sam@v2", {"use-installer": True}), AWS,
        run("Build", "sam build --use-container"),
        run("Deploy", "sam deploy --stack-name <app>-<stage> --no-confirm-changeset --resolve-s3")]),
    ("Cloud Run", IDENTITY, [
        GOOGLE, use("Deploy to Cloud Run", "google-github-actions/deploy-cloudrun@v2",
                    {"service": "<app>-<stage>", "region": "europe-west1", "source": "."}, id="deploy"),
        run(("Probe", "Smoke test"), 'curl --fail --silent --show-error "$URL/healthz"',
            env={"URL": "${{ steps.deploy.outputs.url }}"})]),
    ("Azure Container Apps", IDENTITY, [
        AZURE, run("Update container app",
                   "az containerapp up --name <app>-<stage> --resource-group <app> --source .")]),
    ("Fly.io", READ, [
        use("Set up flyctl", "superfly/flyctl-actions/setup-flyctl@master"),
        run("Deploy", "flyctl deploy --remote-only --app <app>-<stage>",
            env={"FLY_API_TOKEN": "${{ secrets.FLY_API_TOKEN }}"})]),
    ("Render", READ, [
        run("Trigger deploy", 'curl --fail --silent --show-error -X POST "$DEPLOY_HOOK"',
            env={"DEPLOY_HOOK": "${{ secrets.RENDER_DEPLOY_HOOK }}"})]),
    ("server", READ, [
        use(("Deploy over SSH", "Restart services"), "appleboy/ssh-action@v1",
            {"host": "<stage>.example.com", "username": "deploy", "key": "${{ secrets.SSH_KEY }}",
             "script": "cd /srv/<app>\ngit pull --ff-only\ndocker compose up --build --detach\n"})]),
)
ON_DEPLOY = ({"push": BRANCH}, {"push": BRANCH, "workflow_dispatch": None},
             {"release": {"types": ["published"]}})
IMAGE = job((..., "Build image"), [
    CHECKOUT, GHCR, use("Build and push", "docker/build-push-action", {
        "context": ".", "push": True, "tags": "ghcr.io/${{ github.repository }}:${{ github.sha }}"})],
    permissions=READ | {"packages": "write"})


def deploy_job(target, stage, needs):
    title, permissions, steps = target
    environment = (stage, {"name": stage, "url": f"https://<app>.{stage}.example.com"})
    deploy = job((..., f"Deploy to {title} ({stage})"), [CHECKOUT, steps], needs=needs,
                 permissions=permissions, environment=environment, concurrency=(..., f"deploy-{stage}"))
    return WithWords(deploy, {"stage": stage})


def deploy(tool):
    """Test, then deploy to production, or to staging first."""
    return tool.migrate and tuple({
        "name": ("Deploy", f"Deploy to {target[0]}", "Test and deploy"), "on": ON_DEPLOY,
        "jobs": {TEST: test_job(tool), ...: (
            {"deploy": deploy_job(target, "production", TEST)},
            {"staging": deploy_job(target, "staging", TEST),
             "production": deploy_job(target, "production", "staging")})},
    } for target in TARGETS)


def delivery(tool):
    """Lint, test, build an image and deploy it."""
    return tool.migrate and tuple({
        "name": ("Delivery", "Continuous delivery", "CI/CD"), "on": ON_DEPLOY,
        "concurrency": (..., "delivery"),
        "jobs": {
            LINT: lint_job(tool), TEST: matrix_job(tool), "image": IMAGE | {"needs": [LINT, TEST]}, ...: (
                {"deploy": deploy_job(target, "production", "image")},
                {"staging": deploy_job(target, "staging", "image"),
                 "production": deploy_job(target, "production", "staging")})},
    } for target in CLUSTERS)


# -----------------------------------------------------------------------------
# sites: the steps that build one, and its output folder; then the hosts that publish it

def npm_site(command):
    return [setup_node("npm"), run("Install dependencies", "npm ci"), run("Build site", command)]


def python_site(packages, command):
    return [use("Set up Python", "actions/setup-python", {"python-version": "3.12"}),
            run("Install dependencies", ("pip install -r docs/requirements.txt", f"pip install {packages}")),
            run(("Build documentation", "Build docs"), command)]


SITES = {
    "mkdocs": (python_site("mkdocs-material", "mkdocs build --strict"), "site"),
    "sphinx": (python_site("sphinx furo", "sphinx-build -W docs docs/_build/html"), "docs/_build/html"),
    "docusaurus": (npm_site("npm run build"), "build"),
    "vitepress": (npm_site("npm run docs:build"), "docs/.vitepress/dist"),
    "astro": (npm_site(("npm run build", "npx astro build")), "dist"),
    "eleventy": (npm_site("npx @11ty/eleventy"), "_site"),
    "vite": (npm_site(("npm run build", "npx vite build")), "dist"),
    "storybook": (npm_site("npm run build-storybook"), "storybook-static"),
    "hugo": ([use("Set up Hugo", "peaceiris/actions-hugo@v3",
                  {"hugo-version": ("latest", "0.147.0"), "extended": (True, ...)}),
              run("Build site", "hugo --minify")], "public"),
    "jekyll": ([WithWords(RUBY, {"version": "3.3"}),
                run("Build site", "bundle exec jekyll build", env={"JEKYLL_ENV": "production"})], "_site"),
    "mdbook": ([use("Install mdBook", "peaceiris/actions-mdbook@v2", {"mdbook-version": "latest"}),
                run("Build book", "mdbook build")], "book"),
    "rustdoc": ([use("Install Rust", "dtolnay/rust-toolchain@stable"),
                 run("Build documentation", "cargo doc --no-deps", env={"RUSTDOCFLAGS": "-D warnings"})],
                "target/doc"),
    "doxygen": ([run("Install Doxygen", "sudo apt-get update\nsudo apt-get install -y doxygen graphviz\n"),
                 run("Build documentation", "doxygen Doxyfile")], "docs/html"),
}
HOSTS = (  # title, permissions, steps that publish <out>
    ("GitHub Pages", WRITE, [
        use("Deploy", "peaceiris/actions-gh-pages@v4",
            {"github_token": "${{ secrets.GITHUB_TOKEN }}", "publish_dir": "<out>"})]),
    ("Netlify", READ, [
        run("Deploy to Netlify", "npx netlify-cli deploy --dir=<out> --prod",
            env={"NETLIFY_AUTH_TOKEN": "${{ secrets.NETLIFY_AUTH_TOKEN }}",
                 "NETLIFY_SITE_ID": "${{ vars.NETLIFY_SITE_ID }}"})]),
    ("Cloudflare Pages", READ, [
        use("Deploy to Cloudflare", "cloudflare/wrangler-action@v3",
            {"apiToken": "${{ secrets.CLOUDFLARE_API_TOKEN }}",
             "accountId": "${{ vars.CLOUDFLARE_ACCOUNT_ID }}",
             "command": "pages deploy <out> --project-name=<app>"})]),
    ("S3", IDENTITY, [
        AWS, run("Sync to bucket", "aws s3 sync <out> s3://<app>-site --delete"),
        (..., run("Invalidate cache",
                  'aws cloudfront create-invalidation --distribution-id "$DISTRIBUTION" --paths "/*"',
                  env={"DISTRIBUTION": "${{ vars.CLOUDFRONT_DISTRIBUTION }}"}))]),
    ("Firebase", READ, [
        use("Deploy to Firebase Hosting", "FirebaseExtended/action-hosting-deploy@v0",
            {"repoToken": "${{ secrets.GITHUB_TOKEN }}", "channelId": "live",
             "firebaseServiceAccount": "${{ secrets.FIREBASE_SERVICE_ACCOUNT }}"})]),
    ("Vercel", READ, [
        run("Deploy to Vercel", 'npx vercel deploy <out> --prod --token "$VERCEL_TOKEN"',
            env={"VERCEL_TOKEN": "${{ secrets.VERCEL_TOKEN }}", "VERCEL_ORG_ID": "${{ vars.VERCEL_ORG_ID }}",
                 "VERCEL_PROJECT_ID": "${{ vars.VERCEL_PROJECT_ID }}"})]),
    ("web server", READ, [
        use("Set up SSH key", "webfactory/ssh-agent@v0.9.1", {"ssh-private-key": "${{ secrets.SSH_KEY }}"}),
        run("Copy files", 'rsync -az --delete -e "ssh -o StrictHostKeyChecking=accept-new" \\\n'
                          '  <out>/ "deploy@$SSH_HOST:/var/www/<app>/"\n',
            env={"SSH_HOST": "${{ vars.SSH_HOST }}"})]),
)
ON_SITE = (*ON_DEPLOY, {"push": BRANCH | {"paths": ["docs/**", ".github/workflows/docs.yml"]}})


def pages(build, folder):
    """Publish a site on GitHub Pages: the Pages actions require one job to build and one to deploy."""
    deployment = use("Deploy to GitHub Pages", "actions/deploy-pages@v4", id="deployment")
    return WithWords({
        "name": ("Documentation", "Docs", "Deploy site", "Deploy to GitHub Pages"), "on": ON_SITE,
        "permissions": {"contents": "read", "pages": "write", "id-token": "write"},
        "concurrency": {"group": "pages", "cancel-in-progress": (False, True)},
        "jobs": {
            "build": job((..., "Build site"), [
                CHECKOUT, (use("Configure Pages", "actions/configure-pages@v5"), ...), build,
                use("Upload site", "actions/upload-pages-artifact", {"path": ("<out>", "./<out>")})]),
            "deploy": job((..., "Deploy"), [deployment], needs="build", environment={
                "name": "github-pages", "url": "${{ steps.deployment.outputs.page_url }}"})},
    }, {"out": folder})


def hosted(build, folder):
    """Publish a site on another host."""
    return WithWords(tuple({
        "name": ("Publish site", f"Deploy to {title}", "Website"), "on": ON_SITE,
        "permissions": permissions, "concurrency": (..., "deploy-site"),
        "jobs": {("deploy", "publish", "site"): job((..., "Build and deploy"), [CHECKOUT, build, steps],
                                                    environment=(..., "production"))},
    } for title, permissions, steps in HOSTS), {"out": folder})


TOOL_RECIPES = (ci, lint, versions, platforms, pipeline, coverage, integration, container, component,
                reusable, release, publish, image, nightly, audit, update, deploy, delivery)
SITE_RECIPES = (pages, hosted)
