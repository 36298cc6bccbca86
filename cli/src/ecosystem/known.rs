//! The kinds of source trees that are known: by which files, and how each is built.

use serde_json::Value;

use super::{Recipe, Tree};

/// Looks whether a tree is of a kind.
type Kind = fn(&Tree) -> Option<Recipe>;

/// All kinds, in the order in which their commands run.
pub(super) const KNOWN: &[Kind] = &[
    cargo, node, python, go, maven, gradle, composer, bundler, dotnet,
];

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// Those of `names` that are there.
fn there(tree: &Tree, names: &[&str]) -> Vec<String> {
    let names = names.iter().filter(|name| tree.has(name));
    names.map(|&name| name.to_owned()).collect()
}

/// A version as runtimes have it, from a file that holds it: digits and dots after an optional word.
fn version(text: &str) -> Option<String> {
    let line = text.lines().next()?.trim();
    let digits = line.trim_start_matches(|c: char| c.is_ascii_alphabetic() || c == '-');
    let is_version = |c: char| c.is_ascii_digit() || c == '.';
    (!digits.is_empty()
        && digits.chars().all(is_version)
        && digits.starts_with(|c: char| c.is_ascii_digit()))
    .then(|| digits.to_owned())
}

/// The runtime, if one of `files` says its version.
fn runtime(tree: &Tree, name: &'static str, files: &[&str]) -> Option<(&'static str, String)> {
    let mut versions = files.iter().filter_map(|file| version(tree.text(file)?));
    versions.next().map(|version| (name, version))
}

fn cargo(tree: &Tree) -> Option<Recipe> {
    tree.has("Cargo.toml").then(|| {
        let locks = there(tree, &["Cargo.lock"]);
        let locked = if locks.is_empty() { "" } else { " --locked" };
        Recipe {
            name: "cargo",
            install: vec![format!("cargo fetch{locked}")],
            build: vec![format!("cargo build --release{locked}")],
            test: vec![format!("cargo test --release{locked}")],
            locks,
            cached: &[
                "/root/.cargo/registry/**/*",
                "/root/.cargo/git/**/*",
                "target/**/*",
            ],
            ..Recipe::default()
        }
    })
}

fn node(tree: &Tree) -> Option<Recipe> {
    let package = tree
        .has("package.json")
        .then(|| tree.text("package.json"))?;
    let package: Value = package
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let (tool, install, lock, cached): (_, _, _, &'static [&'static str]) =
        if tree.has("pnpm-lock.yaml") {
            let install = "pnpm install --frozen-lockfile --store-dir .pnpm-store";
            ("pnpm", install, "pnpm-lock.yaml", &[".pnpm-store/**/*"])
        } else if tree.has("yarn.lock") {
            let install = "yarn install --frozen-lockfile";
            ("yarn", install, "yarn.lock", &["node_modules/**/*"])
        } else if tree.has("package-lock.json") {
            ("npm", "npm ci", "package-lock.json", &["/root/.npm/**/*"])
        } else {
            (
                "npm",
                "npm install",
                "package-lock.json",
                &["/root/.npm/**/*"],
            )
        };
    let script = |name: &str| {
        let script = package.get("scripts").and_then(|scripts| scripts.get(name));
        let script = script.and_then(Value::as_str);
        // What `npm init` writes, and what only says that there is none.
        let there = script.filter(|script| !script.contains("no test specified"));
        there.map(|_| format!("{tool} run {name}"))
    };
    Some(Recipe {
        name: tool,
        runtime: runtime(tree, "nodejs", &[".nvmrc", ".node-version"]),
        install: texts(&[install]),
        build: script("build").into_iter().collect(),
        test: script("test").into_iter().collect(),
        locks: there(tree, &[lock]),
        cached,
    })
}

fn python(tree: &Tree) -> Option<Recipe> {
    let (name, install, lock, cached): (_, _, _, &'static [&'static str]) = if tree.has("uv.lock") {
        (
            "uv",
            "uv sync --frozen",
            "uv.lock",
            &["/root/.cache/uv/**/*"],
        )
    } else if tree.has("poetry.lock") {
        let cached = &["/root/.cache/pypoetry/**/*"];
        ("poetry", "poetry install", "poetry.lock", cached)
    } else if tree.has("Pipfile.lock") {
        let cached = &["/root/.cache/pip/**/*"];
        ("pipenv", "pipenv sync --dev", "Pipfile.lock", cached)
    } else if tree.has("requirements.txt") {
        let install = "python3 -m pip install -r requirements.txt";
        (
            "pip",
            install,
            "requirements.txt",
            &["/root/.cache/pip/**/*"],
        )
    } else if tree.has("pyproject.toml") || tree.has("setup.py") {
        let install = "python3 -m pip install .";
        ("pip", install, "pyproject.toml", &["/root/.cache/pip/**/*"])
    } else {
        return None;
    };
    let run = match name {
        "uv" => "uv run pytest",
        "poetry" => "poetry run pytest",
        "pipenv" => "pipenv run pytest",
        _ => "python3 -m pytest",
    };
    let has_tests = ["tests", "test", "pytest.ini", "conftest.py"];
    let has_tests = has_tests.iter().any(|name| tree.has(name));
    Some(Recipe {
        name,
        runtime: runtime(tree, "python", &[".python-version"]),
        install: texts(&[install]),
        build: Vec::new(),
        test: if has_tests { texts(&[run]) } else { Vec::new() },
        locks: there(tree, &[lock]),
        cached,
    })
}

fn go(tree: &Tree) -> Option<Recipe> {
    tree.has("go.mod").then(|| {
        let lines = tree.text("go.mod").unwrap_or_default().lines();
        let mut versions = lines.filter_map(|line| version(line.strip_prefix("go ")?));
        Recipe {
            name: "go",
            runtime: versions.next().map(|version| ("golang", version)),
            install: texts(&["go mod download"]),
            build: texts(&["go build ./..."]),
            test: texts(&["go test ./..."]),
            locks: there(tree, &["go.sum"]),
            cached: &["/root/go/pkg/mod/**/*", "/root/.cache/go-build/**/*"],
        }
    })
}

fn maven(tree: &Tree) -> Option<Recipe> {
    tree.has("pom.xml").then(|| {
        let tool = if tree.has("mvnw") { "./mvnw" } else { "mvn" };
        Recipe {
            name: "maven",
            build: vec![format!("{tool} -B verify")],
            locks: texts(&["pom.xml"]),
            cached: &["/root/.m2/**/*"],
            ..Recipe::default()
        }
    })
}

fn gradle(tree: &Tree) -> Option<Recipe> {
    let locks = there(
        tree,
        &[
            "build.gradle",
            "build.gradle.kts",
            "settings.gradle",
            "settings.gradle.kts",
            "gradle.lockfile",
        ],
    );
    let is_one = tree.has("build.gradle") || tree.has("build.gradle.kts");
    is_one.then(|| {
        let tool = if tree.has("gradlew") {
            "./gradlew"
        } else {
            "gradle"
        };
        Recipe {
            name: "gradle",
            build: vec![format!("{tool} build")],
            locks,
            cached: &["/root/.gradle/caches/**/*", "/root/.gradle/wrapper/**/*"],
            ..Recipe::default()
        }
    })
}

fn composer(tree: &Tree) -> Option<Recipe> {
    tree.has("composer.json").then(|| Recipe {
        name: "composer",
        install: texts(&["composer install --no-interaction"]),
        test: match tree.has("phpunit.xml") || tree.has("phpunit.xml.dist") {
            true => texts(&["vendor/bin/phpunit"]),
            false => Vec::new(),
        },
        locks: there(tree, &["composer.lock"]),
        cached: &["vendor/**/*"],
        ..Recipe::default()
    })
}

fn bundler(tree: &Tree) -> Option<Recipe> {
    tree.has("Gemfile").then(|| Recipe {
        name: "bundler",
        runtime: runtime(tree, "ruby", &[".ruby-version"]),
        install: texts(&[
            "bundle config set --local path vendor/bundle",
            "bundle install",
        ]),
        test: match tree.has("Rakefile") {
            true => texts(&["bundle exec rake"]),
            false => Vec::new(),
        },
        locks: there(tree, &["Gemfile.lock"]),
        cached: &["vendor/bundle/**/*"],
        ..Recipe::default()
    })
}

fn dotnet(tree: &Tree) -> Option<Recipe> {
    let project = tree
        .ending_in(".sln")
        .or_else(|| tree.ending_in(".csproj"))?;
    // It stands in a command in the key.
    let is_plain = project
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    let mut locks = there(tree, &["packages.lock.json"]);
    if locks.is_empty() && project.ends_with(".csproj") && is_plain {
        locks.push(project.to_owned());
    }
    Some(Recipe {
        name: "dotnet",
        install: texts(&["dotnet restore"]),
        build: texts(&["dotnet build --no-restore"]),
        test: texts(&["dotnet test --no-build"]),
        locks,
        cached: &["/root/.nuget/packages/**/*"],
        ..Recipe::default()
    })
}

/// Make, for trees of no other kind: beside another tool it mostly calls that.
pub(super) fn make(tree: &Tree) -> Option<Recipe> {
    tree.has("Makefile").then(|| {
        let text = tree.text("Makefile").unwrap_or_default();
        let has_tests = text.lines().any(|line| line.starts_with("test:"));
        Recipe {
            name: "make",
            build: texts(&["make"]),
            test: if has_tests {
                texts(&["make test"])
            } else {
                Vec::new()
            },
            ..Recipe::default()
        }
    })
}
