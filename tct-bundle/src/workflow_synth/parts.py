"""Define the parts of synthetic workflows: steps, jobs, and the toolchains that most workflows use.

Everything here is a template. `workflow_synth.compose.resolve` turns it into a workflow:
- a tuple is a choice; equal tuples resolve to the same option within one workflow;
- `...` is nothing: the key or the item that holds it is omitted;
- a list inside a list is spliced into it; a dict under the key `...` is merged into the dict that holds it;
- `<word>` is replaced by the word's value; if that is nothing, the text that holds it is nothing too.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class WithWords:
    """A template with its own values for some words."""

    template: object
    words: dict


# Major versions in use, by action; a workflow uses one version of an action throughout.
VERSIONS = {
    "actions/checkout": "v4 v5 v6", "actions/setup-python": "v5 v6", "actions/setup-node": "v4 v5 v6",
    "actions/setup-go": "v5 v6", "actions/setup-java": "v4 v5", "actions/setup-dotnet": "v4 v5",
    "actions/upload-artifact": "v4 v5", "actions/download-artifact": "v4 v5", "actions/cache": "v4",
    "actions/github-script": "v7 v8", "actions/upload-pages-artifact": "v3 v4",
    "astral-sh/setup-uv": "v5 v6 v7", "aws-actions/configure-aws-credentials": "v4 v5",
    "codecov/codecov-action": "v4 v5", "docker/build-push-action": "v5 v6",
    "github/codeql-action/upload-sarif": "v3 v4", "golangci/golangci-lint-action": "v7 v8",
    "google-github-actions/auth": "v2 v3", "gradle/actions/setup-gradle": "v4 v5",
    "peter-evans/create-pull-request": "v6 v7",
}


def run(name, script, *, id=..., when=..., env=...) -> dict:
    """Return a step that runs a script."""
    return {"name": name, "id": id, "if": when, "env": env, "run": script}


def use(name, action, inputs=..., *, id=..., when=..., env=...) -> dict:
    """Return a step that uses an action, at one of its VERSIONS unless the name has a version."""
    pinned = tuple(f"{action}@{version}" for version in VERSIONS.get(action, "").split()) or action
    return {"name": name, "id": id, "if": when, "uses": pinned, "with": inputs, "env": env}


def job(name, steps, *, when=..., runs_on="<runner>", **keys) -> dict:
    """Return a job with these steps; `keys` are further keys of the job."""
    return {"name": name, "if": when, "runs-on": runs_on, **keys, "steps": steps}


def upload(name: str, path: str) -> dict:
    """Return a step that uploads `path` as an artifact."""
    return use(("Upload artifact", "Keep build output"), "actions/upload-artifact",
               {"name": name, "path": path, "if-no-files-found": (..., "error"), "retention-days": (..., 7)})


def download(path: str, **inputs) -> dict:
    """Return a step that downloads artifacts of earlier jobs into `path`."""
    return use(("Download artifacts", "Fetch build output"), "actions/download-artifact",
               inputs | {"path": path})


BRANCH = {"branches": ["<branch>"]}
TAGS = {"tags": (["v*"], ["v*.*.*"], ["v[0-9]+.[0-9]+.[0-9]+"])}
READ, WRITE, IDENTITY = {"contents": "read"}, {"contents": "write"}, {"contents": "read", "id-token": "write"}
GH_TOKEN = {"GH_TOKEN": ("${{ github.token }}", "${{ secrets.GITHUB_TOKEN }}")}

CHECKOUT = use(("Checkout", "Check out code", "Checkout repository", "Check out the repository"),
               "actions/checkout")
CHECKOUT_ALL = CHECKOUT | {"with": {"fetch-depth": 0}}
GHCR = use(("Log in to registry", "Log in to GHCR"), "docker/login-action@v3",
           {"registry": "ghcr.io", "username": "${{ github.actor }}",
            "password": "${{ secrets.GITHUB_TOKEN }}"})
AWS = use(("Configure AWS credentials", "Assume AWS role"), "aws-actions/configure-aws-credentials",
          {"role-to-assume": ("${{ secrets.AWS_ROLE_ARN }}", "${{ vars.AWS_ROLE_ARN }}"),
           "aws-region": ("eu-central-1", "us-east-1", "eu-west-1")})
GOOGLE = use(("Authenticate to Google Cloud", "Google auth"), "google-github-actions/auth",
             {"workload_identity_provider": "${{ vars.GCP_IDENTITY_PROVIDER }}",
              "service_account": "${{ vars.GCP_SERVICE_ACCOUNT }}"})
AZURE = use(("Log in to Azure", "Azure login"), "azure/login@v2",
            {"client-id": "${{ secrets.AZURE_CLIENT_ID }}", "tenant-id": "${{ secrets.AZURE_TENANT_ID }}",
             "subscription-id": "${{ secrets.AZURE_SUBSCRIPTION_ID }}"})
KUBECONFIG = use("Set cluster context", "azure/k8s-set-context@v4",
                 {"method": "kubeconfig", "kubeconfig": "${{ secrets.KUBECONFIG }}"})


def slack(text, when) -> dict:
    """Return a step that sends `text`, which must be valid in double quotes, to the team's chat."""
    return use(("Notify Slack", "Tell the team"), "slackapi/slack-github-action@v2",
               {"webhook": "${{ secrets.SLACK_WEBHOOK_URL }}", "webhook-type": "incoming-webhook",
                "payload": f'text: "{text}"\n'}, when=when)


# -----------------------------------------------------------------------------
# toolchains: a language and its build tool


@dataclass(frozen=True)
class Tool:
    """Templates to set up and use a toolchain; None if it has no such command."""

    slug: str
    language: str
    key: str  # the matrix variable over versions
    versions: tuple  # oldest first
    fixed: tuple  # the choice for a job without a matrix
    setup: list
    install: list
    lint: list
    test: list
    build: list
    artifact: str  # the output of build
    paths: list  # its sources; the lock file is last
    coverage: list | None = None  # like test, with a report
    publish: list | None = None  # to the language's registry
    audit: list | None = None
    update: str | None = None  # updates the lock file
    image: str | None = None  # a container image that replaces setup
    migrate: str | None = None  # prepares a database; only for languages that servers are written in
    portable: bool = True  # its commands also work on Windows
    native: bool = False  # build creates a program for its own platform


CODECOV = use("Upload coverage", "codecov/codecov-action", {"token": "${{ secrets.CODECOV_TOKEN }}"})


def python(slug, prefix, setup, install, build, lock, **more) -> Tool:
    """Return a Python toolchain whose commands start with `prefix`."""
    tests = ("pytest", "pytest -v", "pytest -q tests", "python -m pytest")
    build = run(("Build package", "Build wheel and sdist"), build)
    return Tool(
        slug, "Python", "python-version", ("3.10", "3.11", "3.12", "3.13"), ("3.12", "3.13"), setup, install,
        lint=[run(("Lint", "Lint with ruff"), (f"{prefix}ruff check .", f"{prefix}ruff check src tests")),
              (..., run("Check formatting", f"{prefix}ruff format --check .")),
              (..., run("Type check", f"{prefix}mypy src"))],
        test=[run(("Run tests", "Test", "Test with pytest"), tuple(prefix + test for test in tests))],
        coverage=[run("Run tests with coverage", f"{prefix}pytest --cov=src --cov-report=xml"), CODECOV],
        build=[build], artifact="dist/", paths=["src/**", "tests/**", "pyproject.toml", lock],
        publish=[build, use("Publish to PyPI", "pypa/gh-action-pypi-publish@release/v1")],
        audit=[run("Audit dependencies", f"{prefix}pip-audit")],
        migrate=(f"{prefix}alembic upgrade head", f"{prefix}python manage.py migrate --noinput"), **more,
    )


def setup_python(**inputs) -> dict:
    return use(("Set up Python", "Set up Python <version>"), "actions/setup-python",
               {"python-version": "<version>", **inputs})


def node(slug, manager, setup, install, lock, audit, **more) -> Tool:
    """Return Node.js with a package manager."""
    script = "npm run" if manager == "npm" else manager
    return Tool(
        slug, ("Node.js", "Node"), "node-version", (18, 20, 22, 24), (20, 22, 24, "lts/*"), setup,
        [run("Install dependencies", install)],
        lint=[run("Lint", f"{script} lint"), (..., run("Check types", f"{script} typecheck")),
              (..., run("Check formatting", f"{script} format:check"))],
        test=[run(("Run tests", "Test", "Unit tests"), (f"{manager} test", f"{script} test:unit"))],
        coverage=[run("Run tests with coverage", f"{script} test:coverage"), CODECOV],
        build=[run(("Build", "Compile"), f"{script} build")], artifact="dist/",
        paths=["src/**", "test/**", "package.json", lock],
        publish=[run("Build", f"{script} build"),
                 run("Publish to npm", ("npm publish --access public", "npm publish --provenance"))],
        audit=[run("Audit dependencies", audit)], migrate=f"{script} db:migrate", **more,
    )


def setup_node(cache, lock=...) -> dict:
    return use(("Set up Node.js", "Use Node.js <version>"), "actions/setup-node",
               {"node-version": "<version>", "cache": cache,
                "cache-dependency-path": lock if lock is ... else f"<dir>/{lock}"})


def jvm(slug, language, command, setup, goals, **more) -> Tool:
    """Return a JVM language with a build tool; `goals` are in the order of MAVEN_GOALS."""
    test, package, coverage, publish, migrate = goals
    return Tool(
        slug, language, "java", ("11", "17", "21"), ("17", "21"), setup, [],
        test=[run(("Run tests", "Test"), tuple(f"{command} {goal}" for goal in test))],
        coverage=[run("Test with coverage", f"{command} {coverage}"), CODECOV],
        build=[run(("Build", "Package"), f"{command} {package}")],
        publish=[run("Publish to Maven Central", f"{command} {publish}",
                     env={"MAVEN_USERNAME": "${{ secrets.MAVEN_USERNAME }}",
                          "MAVEN_PASSWORD": "${{ secrets.MAVEN_PASSWORD }}"})],
        migrate=f"{command} {migrate}", **more,
    )


def setup_java(**inputs) -> dict:
    return use(("Set up JDK", "Set up JDK <version>"), "actions/setup-java",
               {"distribution": ("temurin", "temurin", "corretto"), "java-version": "<version>", **inputs})


GRADLE = [setup_java(), use("Set up Gradle", "gradle/actions/setup-gradle")]
GRADLE_GOALS = ("test", "check"), "assemble", "test jacocoTestReport", "publish", "flywayMigrate"
MAVEN_GOALS = (("test", "verify"), "package -DskipTests", "verify jacoco:report",
               "deploy -P release -DskipTests", "flyway:migrate")
RUBY = use(("Set up Ruby", "Install Ruby"), "ruby/setup-ruby@v1",
           {"ruby-version": "<version>", "bundler-cache": True, "working-directory": "<dir>"})
RUST = use(("Install Rust", "Set up Rust"), "dtolnay/rust-toolchain@master",
           {"toolchain": "<version>", "components": "rustfmt, clippy"})
CONFIGURE = run(("Configure", "Configure CMake"), "cmake -B build -G Ninja -DCMAKE_BUILD_TYPE=<version>")
CARGO_CACHE = (
    use(("Cache cargo", "Cache dependencies"), "Swatinem/rust-cache@v2", {"workspaces": "<dir>"}),
    use("Cache cargo", "actions/cache",
        {"path": "~/.cargo/registry\n~/.cargo/git\n",
         "key": "${{ runner.os }}-cargo-${{ hashFiles('**/Cargo.lock') }}"}),
)


def install_cargo(tool) -> dict:
    return use(f"Install {tool}", "taiki-e/install-action@v2", {"tool": tool})


TOOLS = (
    python(
        "python-pip", "",
        [setup_python(**{"cache": "pip", "cache-dependency-path": "<dir>/requirements-dev.txt"})],
        [run("Install dependencies", ("pip install -r requirements-dev.txt", "pip install -e '.[dev]'",
                                      "python -m pip install --upgrade pip\npip install -e '.[dev]'\n"))],
        "pip install build\npython -m build\n", "requirements-dev.txt", image="python:<version>-slim",
        update="pip install pip-tools\npip-compile --upgrade requirements-dev.in\n"),
    python(
        "python-uv", "uv run ",
        [use(("Install uv", "Set up uv"), "astral-sh/setup-uv",
             {"python-version": "<version>", "enable-cache": (True, ...)})],
        [run(("Install dependencies", "Install the project"), ("uv sync --locked", "uv sync --all-extras"))],
        "uv build", "uv.lock", update="uv lock --upgrade"),
    python(
        "python-poetry", "poetry run ",
        [setup_python(), run("Install Poetry", ("pipx install poetry", "pip install poetry")),
         (..., use("Cache packages", "actions/cache",
                   {"path": "~/.cache/pypoetry",
                    "key": "poetry-${{ runner.os }}-<version>-${{ hashFiles('**/poetry.lock') }}"}))],
        [run("Install dependencies", ("poetry install --no-interaction", "poetry install --with dev"))],
        "poetry build", "poetry.lock", update="poetry update --lock"),
    node("node-npm", "npm", [setup_node("npm", "package-lock.json")], ("npm ci", "npm ci --no-audit"),
         "package-lock.json", "npm audit --audit-level=high", update="npm update",
         image="node:<version>-bookworm"),
    node("node-pnpm", "pnpm",
         [use(("Install pnpm", "Set up pnpm"), "pnpm/action-setup@v4", {"version": (..., 9, 10)}),
          setup_node("pnpm", "pnpm-lock.yaml")],
         "pnpm install --frozen-lockfile", "pnpm-lock.yaml", "pnpm audit --prod",
         update="pnpm update --recursive"),
    node("node-yarn", "yarn", [run("Enable Corepack", "corepack enable"), setup_node("yarn", "yarn.lock")],
         "yarn install --immutable", "yarn.lock", "yarn npm audit --recursive", update="yarn up '*'"),
    Tool(
        "node-bun", "Bun", "bun-version", ("1.1", "1.2", "latest"), ("latest", "1.2"),
        [use(("Set up Bun", "Install Bun"), "oven-sh/setup-bun@v2", {"bun-version": "<version>"})],
        [run("Install dependencies", "bun install --frozen-lockfile")],
        lint=[run("Lint", "bun run lint"), (..., run("Check types", "bunx tsc --noEmit"))],
        test=[run(("Run tests", "Test"), ("bun test", "bun test --bail"))],
        coverage=[run("Test with coverage", "bun test --coverage --coverage-reporter=lcov"), CODECOV],
        build=[run("Build executable", "bun build src/index.ts --compile --outfile dist/<app>")],
        artifact="dist/", paths=["src/**", "package.json", "bun.lock"], native=True,
        update="bun update", image="oven/bun:<version>", migrate="bun run db:migrate"),
    Tool(
        "deno", "Deno", "deno-version", ("v1.x", "v2.x"), ("v2.x",),
        [use("Set up Deno", "denoland/setup-deno@v2", {"deno-version": "<version>"})], [],
        lint=[run("Check formatting", "deno fmt --check"), run("Lint", "deno lint")],
        test=[run("Run tests", ("deno test --allow-read", "deno test --allow-all", "deno task test"))],
        coverage=[run("Test", "deno test --coverage=cov"),
                  run("Report coverage", "deno coverage --lcov cov > cov.lcov"), CODECOV],
        build=[run("Compile", "deno compile --allow-net --output bin/<app> main.ts")],
        artifact="bin/", paths=["**.ts", "deno.json", "deno.lock"], native=True,
        publish=[run("Publish to JSR", "deno publish")], update="deno outdated --update --latest",
        migrate="deno task migrate"),
    Tool(
        "go", "Go", "go-version", ("1.23", "1.24", "1.25"), ("1.24", "1.25", "stable"),
        [use(("Set up Go", "Install Go"), "actions/setup-go",
             {"go-version": "<version>", "cache-dependency-path": "<dir>/go.sum"})],
        [(..., run("Download modules", "go mod download"))],
        lint=[(run("Vet", "go vet ./..."), run("Check formatting", 'test -z "$(gofmt -l .)"')),
              (..., use("golangci-lint", "golangci/golangci-lint-action", {"version": ("latest", "v2.1")}))],
        test=[run(("Run tests", "Test"), ("go test ./...", "go test -race ./...", "go test -v ./..."))],
        coverage=[run("Test with coverage", "go test -race -coverprofile=coverage.out ./..."), CODECOV],
        build=[run("Build", "go build -o bin/ ./cmd/<app>")],
        artifact="bin/", paths=["**.go", "go.mod", "go.sum"], native=True,
        audit=[use("Run govulncheck", "golang/govulncheck-action@v1")],
        update="go get -u ./...\ngo mod tidy\n", image="golang:<version>", migrate="go run ./cmd/migrate up"),
    Tool(
        "rust", "Rust", "toolchain", ("1.85.0", "beta", "stable"), ("stable",), [RUST, CARGO_CACHE], [],
        lint=[run("Check formatting", "cargo fmt --all --check"),
              run(("Clippy", "Run clippy"), ("cargo clippy --all-targets -- -D warnings",
                                             "cargo clippy --workspace --all-features -- -D warnings"))],
        test=[(run(("Run tests", "Test"), ("cargo test", "cargo test --workspace", "cargo test --locked")),
               [install_cargo("nextest"), run("Run tests", "cargo nextest run --workspace")])],
        coverage=[install_cargo("cargo-llvm-cov"),
                  run("Test with coverage", "cargo llvm-cov --lcov --output-path lcov.info"), CODECOV],
        build=[run("Build", ("cargo build --release", "cargo build --release --locked"))],
        artifact="target/release/<app>", paths=["src/**", "Cargo.toml", "Cargo.lock"], native=True,
        publish=[run("Publish to crates.io", "cargo publish",
                     env={"CARGO_REGISTRY_TOKEN": "${{ secrets.CARGO_REGISTRY_TOKEN }}"})],
        audit=[(use("Audit", "rustsec/audit-check@v2", {"token": "${{ secrets.GITHUB_TOKEN }}"}),
                use("Check licenses and advisories", "EmbarkStudios/cargo-deny-action@v2"))],
        update="cargo update", image="rust:1-bookworm", migrate="cargo run --bin migrate"),
    jvm("java-maven", "Java", "mvn -B",
        [setup_java(**{"cache": "maven", "cache-dependency-path": "<dir>/pom.xml"})], MAVEN_GOALS,
        lint=[run("Check style", ("mvn -B checkstyle:check", "mvn -B spotless:check"))],
        artifact="target/*.jar", paths=["src/**", "pom.xml"]),
    jvm("java-gradle", "Java", "./gradlew", GRADLE, GRADLE_GOALS,
        lint=[run("Check style", ("./gradlew checkstyleMain checkstyleTest", "./gradlew spotlessCheck"))],
        artifact="build/libs/*.jar", paths=["src/**", "build.gradle", "gradle/**"]),
    jvm("kotlin-gradle", "Kotlin", "./gradlew", GRADLE, GRADLE_GOALS,
        lint=[run("Check style", "./gradlew ktlintCheck"), (..., run("Analyze", "./gradlew detekt"))],
        artifact="build/libs/*.jar", paths=["src/**", "build.gradle.kts", "gradle/**"]),
    Tool(
        "dotnet", (".NET", "C#"), "dotnet-version", ("8.0.x", "9.0.x"), ("8.0.x", "9.0.x"),
        [use(("Set up .NET", "Setup .NET SDK"), "actions/setup-dotnet", {"dotnet-version": "<version>"})],
        [run("Restore dependencies", "dotnet restore")],
        lint=[run("Check formatting", "dotnet format --no-restore --verify-no-changes")],
        test=[(run("Test", "dotnet test --no-restore --configuration Release"),
               [run("Build", "dotnet build --no-restore"), run("Test", "dotnet test --no-build")])],
        coverage=[run("Test with coverage", 'dotnet test --collect:"XPlat Code Coverage"'), CODECOV],
        build=[run("Publish", "dotnet publish src/<app> --use-current-runtime --output out")],
        artifact="out/", paths=["src/**", "tests/**", "**.csproj"], native=True,
        publish=[run("Pack", "dotnet pack --configuration Release --output packages"),
                 run("Push to NuGet", "dotnet nuget push 'packages/*.nupkg' --api-key \"$NUGET_API_KEY\"",
                     env={"NUGET_API_KEY": "${{ secrets.NUGET_API_KEY }}"})],
        audit=[run("List vulnerable packages", "dotnet list package --vulnerable --include-transitive")],
        migrate="dotnet ef database update"),
    Tool(
        "ruby", "Ruby", "ruby-version", ("3.2", "3.3", "3.4"), ("3.3", "3.4"), [RUBY], [],
        lint=[run(("RuboCop", "Lint"), ("bundle exec rubocop", "bundle exec rubocop --parallel"))],
        test=[run(("Run tests", "Test"), ("bundle exec rspec", "bundle exec rake test", "bundle exec rake"))],
        coverage=[run("Run specs with coverage", "bundle exec rspec", env={"COVERAGE": True}), CODECOV],
        build=[run("Build gem", "mkdir -p pkg\ngem build <app>.gemspec --output pkg/<app>.gem\n")],
        artifact="pkg/*.gem", paths=["lib/**", "spec/**", "Gemfile.lock"],
        publish=[use("Publish to RubyGems", "rubygems/release-gem@v1")],
        audit=[run("Audit gems", "bundle exec bundle-audit check --update")], update="bundle update",
        migrate="bundle exec rake db:create db:migrate"),
    Tool(
        "rails", "Rails", "ruby-version", ("3.2", "3.3", "3.4"), ("3.4", ".ruby-version"), [RUBY], [],
        lint=[run("Lint", "bin/rubocop -f github"), (..., run("Scan code", "bin/brakeman --no-pager"))],
        test=[run(("Run tests", "Test"), ("bin/rails test", "bin/rails db:test:prepare test test:system"))],
        build=[run("Precompile assets", "bin/rails assets:precompile",
                   env={"RAILS_ENV": "production", "SECRET_KEY_BASE_DUMMY": 1})],
        artifact="public/assets/", paths=["app/**", "config/**", "Gemfile.lock"],
        audit=[run("Audit gems", "bin/bundler-audit"), (..., run("Audit JavaScript", "bin/importmap audit"))],
        update="bundle update --conservative", migrate="bin/rails db:prepare", portable=False),
    Tool(
        "php-composer", "PHP", "php", ("8.2", "8.3", "8.4"), ("8.3", "8.4"),
        [use(("Set up PHP", "Setup PHP"), "shivammathur/setup-php@v2",
             {"php-version": "<version>", "extensions": (..., "mbstring, pdo_mysql"), "coverage": "none"})],
        [(use("Install dependencies", "ramsey/composer-install@v3", {"working-directory": "<dir>"}),
          run("Install dependencies", "composer install --prefer-dist --no-progress"))],
        lint=[run("Static analysis", ("vendor/bin/phpstan analyse", "vendor/bin/psalm")),
              (..., run("Check code style", "vendor/bin/php-cs-fixer fix --dry-run --diff"))],
        test=[run(("Run tests", "PHPUnit"), ("vendor/bin/phpunit", "composer test", "vendor/bin/pest"))],
        build=[run("Build archive", "composer install --no-dev --optimize-autoloader\n"
                                    "mkdir -p build\nzip -r build/<app>.zip src vendor composer.json\n")],
        artifact="build/*.zip", paths=["src/**", "tests/**", "composer.lock"],
        audit=[run("Audit dependencies", "composer audit")], update="composer update",
        migrate=("php artisan migrate --force", "bin/console doctrine:migrations:migrate --no-interaction")),
    Tool(
        "cpp-cmake", "C++", "build-type", ("Debug", "Release"), ("Release",),
        [use("Install CMake and Ninja", "lukka/get-cmake@latest")], [],
        lint=[run("Check formatting", "git ls-files '*.cpp' '*.hpp' | xargs clang-format -n --Werror")],
        test=[CONFIGURE, run("Build", "cmake --build build"),
              run("Test", ("ctest --test-dir build --output-on-failure", "ctest --test-dir build -j 4"))],
        build=[CONFIGURE, run(("Build", "Compile"), "cmake --build build --parallel")],
        artifact="build/bin/", paths=["src/**", "include/**", "CMakeLists.txt"], native=True),
    Tool(
        "elixir", "Elixir", "elixir", ("1.16", "1.17", "1.18"), ("1.17", "1.18"),
        [use(("Set up Elixir", "Set up BEAM"), "erlef/setup-beam@v1",
             {"elixir-version": "<version>", "otp-version": "26"}),
         (..., use("Cache dependencies", "actions/cache",
                   {"path": "deps\n_build\n",
                    "key": "mix-${{ runner.os }}-<version>-${{ hashFiles('**/mix.lock') }}"}))],
        [run("Install dependencies", "mix deps.get")],
        lint=[run("Check formatting", "mix format --check-formatted"),
              (..., run("Run Credo", "mix credo --strict"))],
        test=[run("Run tests", ("mix test", "mix test --warnings-as-errors"))],
        coverage=[run("Test with coverage", "mix coveralls.github",
                      env={"GITHUB_TOKEN": "${{ secrets.GITHUB_TOKEN }}"})],
        build=[run("Build release", "mix release", env={"MIX_ENV": "prod"})],
        artifact="_build/prod/*.tar.gz", paths=["lib/**", "test/**", "mix.lock"],
        publish=[run("Publish to Hex", "mix hex.publish --yes",
                     env={"HEX_API_KEY": "${{ secrets.HEX_API_KEY }}"})],
        audit=[run("Audit dependencies", "mix hex.audit")], update="mix deps.update --all",
        image="elixir:<version>", migrate="mix ecto.setup"),
    Tool(
        "swift", "Swift", "swift", ("5.10", "6.0", "6.1"), ("6.0", "6.1"),
        [use("Set up Swift", "swift-actions/setup-swift@v2", {"swift-version": "<version>"})], [],
        lint=[run("Lint", "swift format lint --strict --recursive Sources Tests")],
        test=[run("Run tests", ("swift test", "swift test --parallel"))],
        build=[run("Build", "swift build --configuration release")],
        artifact=".build/release/<app>", paths=["Sources/**", "Tests/**", "Package.resolved"],
        update="swift package update", image="swift:<version>", portable=False),
    Tool(
        "flutter", "Flutter", "channel", ("stable", "beta"), ("stable",),
        [use("Set up Flutter", "subosito/flutter-action@v2", {"channel": "<version>", "cache": (..., True)})],
        [run("Install packages", "flutter pub get")], lint=[run("Analyze", "flutter analyze")],
        test=[run("Run tests", ("flutter test", "flutter test --test-randomize-ordering-seed=random"))],
        coverage=[run("Test with coverage", "flutter test --coverage"), CODECOV],
        build=[run("Build web app", "flutter build web --release")],
        artifact="build/web/", paths=["lib/**", "test/**", "pubspec.lock"]),
    Tool(
        "zig", "Zig", "zig", ("0.13.0", "0.14.1", "master"), ("0.14.1",),
        [use("Install Zig", "mlugg/setup-zig@v2", {"version": "<version>"})], [],
        lint=[run("Check formatting", "zig fmt --check .")],
        test=[run("Run tests", ("zig build test", "zig build test --summary all"))],
        build=[run("Build", ("zig build -Doptimize=ReleaseSafe", "zig build --release=safe"))],
        artifact="zig-out/bin/", paths=["src/**", "build.zig"], native=True),
)
