//! Planning: from a recipe, and the source where that has a part of it, to the jobs of a build.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use buildspec::{
    BatchTask, BuildSpec, Diagnostic, Place, PlanRequest, Secret, SecretName, SecretStore, Severity,
};
use cache::download::{FetchError, fetch_file};
use protocol::{
    blob::TreeRef,
    graph::JobGraph,
    job::Task,
    message::client::BUILDSPEC_BYTES_MAX,
    path::TreePath,
    project::{ProjectArtifacts, Recipe, is_inline},
    report::Chain,
};
use scheduler::RuntimesFound;
use tokio::task::spawn_blocking;

use crate::farm::Farm;

/// How many buildspecs of their own the tasks of a batch may have: each is read by itself, and people write
/// them by hand.
const OWN_BUILDSPECS_MAX: usize = 50;

/// What the buildspec is called where nobody says otherwise.
pub(super) const BUILDSPEC: &str = "buildspec.yml";

/// Why a build cannot be planned.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanningError {
    /// The buildspec, or the request: whose doing it is.
    #[error("{0}")]
    Buildspec(String),
    /// The source cannot be read now. Try again.
    #[error("failed to read the source at the cache: {0}")]
    Cache(String),
}

/// Whether the source has to be there before the build can be planned: it has the buildspec, or those of
/// tasks.
pub(super) fn needs_source(recipe: &Recipe) -> bool {
    match &recipe.buildspec {
        None => true,
        // Whatever names a file is called so.
        Some(text) => recipe.batch && text.contains("buildspec"),
    }
}

/// Reads and plans a buildspec; every mistake is named at once.
///
/// # Errors
///
/// If it has mistakes or cannot be run, or the source cannot be read.
pub(super) async fn plan(
    recipe: &Recipe,
    source: Option<&TreeRef>,
    farm: &Farm,
) -> Result<JobGraph, PlanningError> {
    let text = match &recipe.buildspec {
        Some(text) => text.clone(),
        None => read(farm, source, &recipe.buildspec_path).await?,
    };
    let turn = farm.planning.acquire().await;
    let _turn = turn.expect("the semaphore is never closed");
    let path = recipe.buildspec_path.clone();
    let (text, spec) = {
        let recipe = recipe.clone();
        let parsed = spawn_blocking(move || {
            let spec = parsed(&text, &recipe);
            (text, spec)
        });
        parsed.await.expect("reading a buildspec does not panic")
    };
    let spec = spec.map_err(|found| PlanningError::Buildspec(described(&path, &found)))?;
    check_restrictions(&spec, recipe)?;
    let own = own_buildspecs(&spec, recipe, (source, farm)).await?;
    drop(text);
    let request = PlanRequest {
        variables: recipe.variables.clone(),
        batch: recipe.batch,
        no_cache: recipe.no_cache,
        buildspecs: own,
        path: path.clone(),
        git_credentials: recipe.git_credentials.clone(),
        environment: recipe.environment.clone(),
    };
    let planned = spawn_blocking(move || {
        buildspec::plan(&spec, &request).map_err(|error| error.diagnostics())
    });
    let planned = planned.await.expect("planning does not panic");
    let graph = planned.map_err(|found| PlanningError::Buildspec(described(&path, &found)))?;
    let graph = with_runtimes(farm, graph).await?;
    with_environment(farm, graph).await
}

/// Has units run only where what they ask of their machine is served, as far as workers say what they serve;
/// refuses a build that asks for what none of these serves.
async fn with_environment(farm: &Farm, mut graph: JobGraph) -> Result<JobGraph, PlanningError> {
    let prefaces = graph.jobs.iter_mut().filter_map(|job| match &mut job.task {
        Task::DownloadSource { preface, .. } if !preface.environment.is_empty() => Some(preface),
        _ => None,
    });
    let prefaces: Vec<_> = prefaces.collect();
    let asked: BTreeSet<_> = prefaces.iter().map(|of| of.environment.clone()).collect();
    if asked.is_empty() {
        return Ok(graph);
    }
    let found = farm.dispatcher.ask(move |state| {
        let asked = asked.into_iter();
        let found = asked.map(|asked| (scheduler::environment(state, &asked), asked));
        found.collect::<Vec<_>>()
    });
    // Who stops gives the jobs to nobody.
    let found = found.await.unwrap_or_default();
    let mut selected = BTreeMap::new();
    for (found, asked) in found {
        drop(selected.insert(asked, found.map_err(PlanningError::Buildspec)?));
    }
    for preface in prefaces {
        if let Some(selected) = selected.get(&preface.environment) {
            preface.environment.clone_from(&selected.by);
            preface.not_served.clone_from(&selected.not);
        }
    }
    Ok(graph)
}

/// Has units run only where the runtimes are that they want, if workers offer any; refuses a build that wants some
/// which none of these offers. Where no worker offers any, builds run with what there is.
async fn with_runtimes(farm: &Farm, mut graph: JobGraph) -> Result<JobGraph, PlanningError> {
    let prefaces = graph.jobs.iter_mut().filter_map(|job| match &mut job.task {
        Task::DownloadSource { preface, .. } if !preface.runtimes.is_empty() => Some(preface),
        _ => None,
    });
    let mut prefaces: Vec<_> = prefaces.collect();
    let wanted: BTreeSet<_> = prefaces.iter().map(|of| of.runtimes.clone()).collect();
    if wanted.is_empty() {
        return Ok(graph);
    }
    let found = farm.dispatcher.ask(move |state| {
        let found = wanted
            .iter()
            .map(|wanted| scheduler::runtimes(state, wanted));
        found.collect::<Vec<_>>()
    });
    // Who stops gives the jobs to nobody.
    for found in found.await.unwrap_or_default() {
        match found {
            RuntimesFound::NobodyOffersAny => {}
            RuntimesFound::Offered => {
                for preface in &mut prefaces {
                    preface.selects_runtimes = true;
                }
            }
            RuntimesFound::Mistake(mistake) => {
                return Err(PlanningError::Buildspec(mistake));
            }
        }
    }
    Ok(graph)
}

/// A buildspec with the variables of the project over its own.
fn parsed(text: &str, recipe: &Recipe) -> Result<BuildSpec, Vec<Diagnostic>> {
    let parsed = buildspec::parse(text);
    let Some(mut spec) = parsed.spec else {
        return Err(parsed.diagnostics);
    };
    for (name, value) in &recipe.env.variables {
        spec.secrets.remove(name);
        spec.variables.insert(name.clone(), value.clone());
    }
    let stores = [
        (SecretStore::ParameterStore, &recipe.env.parameter_store),
        (SecretStore::SecretsManager, &recipe.env.secrets_manager),
    ];
    let mut mistakes = name_artifacts(&mut spec, &recipe.artifacts);
    for (store, of) in stores {
        for (name, reference) in of {
            match secret(store, reference) {
                Ok(secret) => drop(spec.secrets.insert(name.clone(), secret)),
                Err(why) => {
                    let message = format!("variable `{name}` of the project: {why}");
                    mistakes.push(Diagnostic::error(Place::START, message));
                }
            }
        }
    }
    if mistakes.is_empty() {
        Ok(spec)
    } else {
        Err(mistakes)
    }
}

/// Has artifacts be called as the project says; gives the mistakes of those that it does not have.
fn name_artifacts(spec: &mut BuildSpec, of_project: &ProjectArtifacts) -> Vec<Diagnostic> {
    let Some(artifacts) = &mut spec.artifacts else {
        return Vec::new();
    };
    let all = [&mut artifacts.primary].into_iter();
    for published in all.chain(artifacts.secondary.values_mut()) {
        let own = published.spec.name.take();
        let own = own.filter(|_| of_project.override_name);
        published.spec.name = own.or_else(|| of_project.name.clone());
    }
    let known = &of_project.secondary;
    let unknown = artifacts.secondary.keys();
    let unknown = unknown.filter(|identifier| !known.is_empty() && !known.contains(*identifier));
    let mistake = |identifier: &String| {
        let known: Vec<_> = known.iter().map(String::as_str).collect();
        let message = format!(
            "secondary artifact `{identifier}` is none of the project, which has {}",
            known.join(", ")
        );
        Diagnostic::error(Place::START, message)
    };
    unknown.map(mistake).collect()
}

/// What a variable of the project refers to.
fn secret(store: SecretStore, reference: &str) -> Result<Secret, String> {
    let name = match store {
        SecretStore::ParameterStore => SecretName {
            id: reference.to_owned(),
            ..SecretName::default()
        },
        SecretStore::SecretsManager => {
            SecretName::parse(reference).map_err(|error| error.to_string())?
        }
    };
    Ok(Secret {
        store,
        reference: reference.to_owned(),
        name,
        place: Place::START,
    })
}

/// Refuses a batch that the project does not allow.
fn check_restrictions(spec: &BuildSpec, recipe: &Recipe) -> Result<(), PlanningError> {
    let Some(batch) = spec.batch.as_ref().filter(|_| recipe.batch) else {
        return Ok(());
    };
    let (max, tasks) = (recipe.restrictions.builds_max, batch.tasks.count());
    if let Some(max) = max.filter(|max| usize::try_from(*max).is_ok_and(|max| max < tasks)) {
        return Err(PlanningError::Buildspec(format!(
            "the batch has {tasks} builds, and the project allows {max}"
        )));
    }
    let allowed = &recipe.restrictions.compute_types;
    if allowed.is_empty() || protocol::graph::TASKS_MAX < tasks {
        return Ok(());
    }
    let tasks = batch.tasks.expanded();
    let asked = |task: &BatchTask| {
        let BatchTask { environment, .. } = task;
        let kind = environment.compute_type.as_ref();
        let kind = kind.filter(|kind| !allowed.contains(*kind));
        // A fleet has machines of its own size.
        let fleet = environment.fleet.as_ref();
        let asks = kind
            .map(|kind| format!("compute type `{kind}`"))
            .or_else(|| fleet.map(|fleet| format!("fleet `{fleet}`")));
        asks.map(|asks| (task.identifier.clone(), asks))
    };
    match tasks.iter().find_map(asked) {
        None => Ok(()),
        Some((task, asks)) => Err(PlanningError::Buildspec(format!(
            "batch task `{task}` asks for {asks}, and the project allows {}",
            allowed.iter().cloned().collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// The buildspecs that tasks have of their own, by what the tasks say of them.
async fn own_buildspecs(
    spec: &BuildSpec,
    recipe: &Recipe,
    (source, farm): (Option<&TreeRef>, &Farm),
) -> Result<BTreeMap<String, BuildSpec>, PlanningError> {
    let mut own = BTreeMap::new();
    let Some(batch) = spec.batch.as_ref().filter(|_| recipe.batch) else {
        return Ok(own);
    };
    let buildspecs = batch.tasks.buildspecs();
    if OWN_BUILDSPECS_MAX < buildspecs.len() {
        return Err(PlanningError::Buildspec(format!(
            "the tasks of the batch have {} buildspecs of their own, at most {OWN_BUILDSPECS_MAX} are allowed",
            buildspecs.len()
        )));
    }
    for said in &buildspecs {
        let (name, text) = if is_inline(said) {
            ("the buildspec of a task", said.to_owned())
        } else {
            (said.as_str(), read(farm, source, said).await?)
        };
        let spec = parsed(&text, recipe);
        let spec = spec.map_err(|found| PlanningError::Buildspec(described(name, &found)))?;
        own.insert(said.to_owned(), spec);
    }
    Ok(own)
}

/// Reads a buildspec in the source.
async fn read(farm: &Farm, source: Option<&TreeRef>, said: &str) -> Result<String, PlanningError> {
    let missing = || {
        PlanningError::Buildspec(match said {
            BUILDSPEC => "YAML file does not exist".to_owned(),
            _ => format!("stat {said}: no such file or directory"),
        })
    };
    let path = said.trim_start_matches("./").trim_start_matches('/');
    let path = TreePath::new(path).map_err(|_| missing())?;
    let source = source.ok_or_else(missing)?;
    let client = farm.cache.client().await;
    let client = client.map_err(|error| PlanningError::Cache(error.to_string()))?;
    let bytes = fetch_file(&client, source, (&path, BUILDSPEC_BYTES_MAX as u64)).await;
    let bytes = bytes.map_err(|error| match error {
        FetchError::TooLarge { .. } => PlanningError::Buildspec(format!(
            "`{said}` has more than {BUILDSPEC_BYTES_MAX} bytes, the most that a buildspec may have"
        )),
        error => PlanningError::Cache(Chain(&error).to_string()),
    })?;
    let bytes = bytes.ok_or_else(missing)?;
    let text = buildspec::text_of(&bytes).map(str::to_owned);
    text.map_err(|error| PlanningError::Buildspec(described(said, &[error.diagnostic()])))
}

/// All mistakes, a line each.
fn described(path: &str, diagnostics: &[Diagnostic]) -> String {
    let mut text = format!("`{path}` cannot be run");
    let errors = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error);
    for diagnostic in errors {
        let _infallible = write!(text, "\n{diagnostic}");
        if let Some(hint) = &diagnostic.hint {
            let _infallible = write!(text, "; {hint}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_of_a_buildspec_is_named_with_its_place_and_repair() {
        let parsed = buildspec::parse(
            "version: 0.2\nphases:\n  pre_build:\n    comands: [a]\n  build:\n    comands: [make]\n",
        );
        let text = described("ci/buildspec.yml", &parsed.diagnostics);
        assert!(
            text.starts_with("`ci/buildspec.yml` cannot be run\n"),
            "{text}"
        );
        for part in ["line 3", "`pre_build`", "line 5", "add `commands:`"] {
            assert!(text.contains(part), "no {part} in: {text}");
        }
    }

    #[test]
    fn variables_of_the_project_go_over_those_of_the_buildspec_whatever_their_types() {
        let text = "version: 0.2\nenv:\n  variables: {A: file, B: file, C: file}\n  parameter-store: {D: p}\n\
            phases:\n  build:\n    commands: [a]\n";
        let mut recipe = Recipe::default();
        let set = |of: &mut BTreeMap<String, String>, name: &str| {
            of.insert(name.to_owned(), "project".to_owned());
        };
        set(&mut recipe.env.variables, "A");
        set(&mut recipe.env.variables, "D");
        set(&mut recipe.env.secrets_manager, "B");
        let spec = parsed(text, &recipe).unwrap();
        assert_eq!(spec.variables["A"], "project");
        assert_eq!(spec.variables["C"], "file");
        assert_eq!(spec.variables["D"], "project");
        let secrets: Vec<_> = spec.secrets.keys().collect();
        assert_eq!(secrets, ["B"]);
        assert_eq!(spec.secrets["B"].store, SecretStore::SecretsManager);
    }

    #[test]
    fn a_batch_keeps_to_what_the_project_allows() {
        let text = "version: 0.2\nbatch:\n  build-list:\n    - identifier: a\n    - identifier: b\n      \
            env: {compute-type: BUILD_GENERAL1_LARGE}\nphases:\n  build:\n    commands: [a]\n";
        let mut recipe = Recipe {
            batch: true,
            ..Recipe::default()
        };
        let check = |recipe: &Recipe| {
            let spec = parsed(text, recipe).unwrap();
            check_restrictions(&spec, recipe).map_err(|error| error.to_string())
        };
        assert_eq!(check(&recipe), Ok(()));
        recipe.restrictions.builds_max = Some(2);
        assert_eq!(check(&recipe), Ok(()));
        recipe.restrictions.builds_max = Some(1);
        assert!(check(&recipe).unwrap_err().contains("2 builds"));
        recipe.restrictions.builds_max = None;
        let small = "BUILD_GENERAL1_SMALL".to_owned();
        recipe.restrictions.compute_types.insert(small);
        assert!(check(&recipe).unwrap_err().contains("task `b` asks for"));
        let spec = parsed(
            &text.replace("compute-type: BUILD_GENERAL1_LARGE", "fleet: big"),
            &recipe,
        );
        let refused = check_restrictions(&spec.unwrap(), &recipe).unwrap_err();
        assert!(refused.to_string().contains("fleet `big`"), "{refused}");
        recipe.batch = false;
        assert_eq!(check(&recipe), Ok(()));
    }
}
