//! Taking builds: the buildspec is read and planned here, whatever the client made of it, and the source
//! is held at the cache before anybody is told that the build was taken.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use buildspec::{Diagnostic, PlanRequest, Severity};
use cache::client::CacheError;
use protocol::{
    access::{Identity, Trust},
    blob::TreeRef,
    build::BuildId,
    graph::JobGraph,
    message::{
        Refusal,
        cache::{Entry, EntryKey, keys},
        client::{
            BUILDSPEC_BYTES_MAX, PRIORITY_MAX, PRIORITY_MIN, SUBMITTED_VARIABLES_MAX, SubmitBuild,
            Submitted,
        },
    },
    name::{Namespace, Team},
    report::Chain,
};
use scheduler::{Event, Submission};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::refusal;
use crate::{clock, farm::Farm, retention::Chore};

/// How many bytes the variables of a submission may have together: what Linux gives the environment of a
/// process by default is eight times as much, and each task of a batch gets a copy.
const VARIABLE_BYTES_MAX: usize = 256 * 1024;
/// How long the path of a buildspec, and the name of a version, may be in bytes: they are shown only.
const TEXT_BYTES_MAX: usize = 4 * 1024;
/// How many bytes the disk has to have free for a build to be taken. Facts about builds that run still
/// fit into what is left then.
pub(crate) const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// Takes a build.
pub(crate) async fn submit(
    build: &SubmitBuild,
    identity: &Identity,
    farm: &Arc<Farm>,
) -> Result<Submitted, Refusal> {
    check(build)?;
    let id = build.id;
    if let Some(submitted) = known(farm, id, identity).await? {
        return Ok(submitted);
    }
    check_room(farm)?;
    let graph = plan(build, farm).await?;
    let weight = (identity.team.clone(), graph.weight());
    check_weight(farm, weight.clone()).await?;
    let namespace = Namespace::from(identity.team.clone());
    let source = HeldSource {
        namespace: namespace.clone(),
        team: identity.team.clone(),
        trust: identity.role.trust(),
        tree: build.source.clone(),
    };
    source.hold(farm, id).await?;
    let jobs = graph.jobs.len();
    let submission = Submission {
        build: id,
        team: identity.team.clone(),
        namespace: namespace.clone(),
        project: build.project.clone(),
        trust: identity.role.trust(),
        initiator: identity.name.clone(),
        source: build.source.clone(),
        source_version: build.source_version.clone(),
        graph,
        reruns: build.reruns.clone(),
        priority: build.priority,
    };
    let candidate = Candidate {
        id,
        namespace,
        weight,
        retried: None,
    };
    let submitted = take(farm, Event::Submit(Box::new(submission)), candidate).await?;
    info!(build = %id, project = %build.project, number = submitted.number, jobs, "build submitted");
    Ok(submitted)
}

/// Takes a build again, from the same source and with the same jobs.
pub(crate) async fn retry(
    (build, id): (BuildId, BuildId),
    identity: &Identity,
    farm: &Arc<Farm>,
) -> Result<Submitted, Refusal> {
    if let Some(submitted) = known(farm, id, identity).await? {
        return Ok(submitted);
    }
    check_room(farm)?;
    let known = farm.dispatcher.ask(move |state| {
        let submission = scheduler::submission(state, build)?;
        let source = HeldSource {
            namespace: submission.namespace.clone(),
            team: submission.team.clone(),
            trust: submission.trust,
            tree: submission.source.clone(),
        };
        Some((source, scheduler::weight(state, build)?))
    });
    let (source, weight) = known.await?.ok_or_else(|| deleted(build))?;
    check_weight(farm, weight.clone()).await?;
    let namespace = source.namespace.clone();
    source.hold(farm, id).await?;
    let event = Event::Retry {
        build,
        retry: id,
        initiator: identity.name.clone(),
    };
    let candidate = Candidate {
        id,
        namespace,
        weight,
        retried: Some(build),
    };
    let submitted = take(farm, event, candidate).await?;
    info!(build = %id, retry_of = %build, number = submitted.number, "build submitted again");
    Ok(submitted)
}

/// The build that was taken under this id before: whoever says it again did not hear that. `None`: there is
/// none.
async fn known(
    farm: &Farm,
    id: BuildId,
    identity: &Identity,
) -> Result<Option<Submitted>, Refusal> {
    let known = farm.dispatcher.ask(move |state| {
        let summary = scheduler::build_summary(state, id)?;
        Some((summary.team, summary.number))
    });
    let Some((team, number)) = known.await? else {
        return Ok(None);
    };
    if team != identity.team {
        return Err(refusal::invalid(format!(
            "build id {id} is another's; draw one at random"
        )));
    }
    info!(build = %id, "build submitted that was taken before");
    Ok(Some(Submitted { build: id, number }))
}

fn deleted(build: BuildId) -> Refusal {
    refusal::not_found(format!("build {build} was deleted"))
}

/// A build that is to be taken.
struct Candidate {
    id: BuildId,
    namespace: Namespace,
    /// Whose it is, and what its graph weighs.
    weight: (Team, u64),
    /// The build that it is to run again.
    retried: Option<BuildId>,
}

/// Lets the scheduler take a build whose source is held already.
async fn take(farm: &Farm, event: Event, candidate: Candidate) -> Result<Submitted, Refusal> {
    let Candidate {
        id,
        namespace,
        weight: (team, weight),
        retried,
    } = candidate;
    let taken = farm.dispatcher.apply(event, move |state| {
        let is_gone = retried.is_some_and(|build| scheduler::is_ended(state, build).is_none());
        let room = scheduler::room(state, &team, weight);
        (scheduler::build_summary(state, id), is_gone, room)
    });
    let (summary, is_gone, room) = taken.await?;
    if let Some(summary) = summary {
        metrics::counter!("grange_builds_submitted_total").increment(1);
        return Ok(Submitted {
            build: id,
            number: summary.number,
        });
    }
    farm.chores.add(Chore::Deleted {
        build: id,
        namespace,
    });
    if let Some(build) = retried.filter(|_| is_gone) {
        return Err(deleted(build));
    }
    Err(match room {
        Err(why) => refusal::exhausted(why.to_string()),
        // There was none a moment ago.
        Ok(()) => refusal::unavailable("there was no room for another build; try again"),
    })
}

/// Refuses a build for which there is no room, before the cache is asked to hold its source.
async fn check_weight(farm: &Farm, (team, weight): (Team, u64)) -> Result<(), Refusal> {
    let room = farm
        .dispatcher
        .ask(move |state| scheduler::room(state, &team, weight));
    let room = room.await?;
    room.map_err(|why| refusal::exhausted(why.to_string()))
}

fn check(build: &SubmitBuild) -> Result<(), Refusal> {
    let bytes = build.buildspec.len();
    if BUILDSPEC_BYTES_MAX < bytes {
        return Err(refusal::invalid(format!(
            "buildspec has {bytes} bytes, at most {BUILDSPEC_BYTES_MAX} are allowed"
        )));
    }
    let variables = build.variables.len();
    if SUBMITTED_VARIABLES_MAX < variables {
        return Err(refusal::invalid(format!(
            "{variables} variables are set, at most {SUBMITTED_VARIABLES_MAX} are allowed"
        )));
    }
    check_variables(&build.variables)?;
    if !(PRIORITY_MIN..=PRIORITY_MAX).contains(&build.priority) {
        return Err(refusal::invalid(format!(
            "priority {} is none; there are {PRIORITY_MIN} to {PRIORITY_MAX}",
            build.priority
        )));
    }
    let texts = [Some(&build.buildspec_path), build.source_version.as_ref()];
    for text in texts.into_iter().flatten() {
        if TEXT_BYTES_MAX < text.len() || text.chars().any(char::is_control) {
            return Err(refusal::invalid(format!(
                "path of buildspec and version of source have at most {TEXT_BYTES_MAX} bytes and no control \
                 characters"
            )));
        }
    }
    Ok(())
}

fn check_variables(variables: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let mut bytes = 0_usize;
    for (name, value) in variables {
        // What a shell can take: no process can be started with anything else.
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(refusal::invalid(format!(
                "variable {name:?} cannot be set: a name has no `=`, and neither name nor value a zero byte"
            )));
        }
        bytes = bytes.saturating_add(name.len() + value.len());
    }
    if VARIABLE_BYTES_MAX < bytes {
        return Err(refusal::invalid(format!(
            "the variables have {bytes} bytes together, at most {VARIABLE_BYTES_MAX} are allowed"
        )));
    }
    Ok(())
}

/// Refuses builds while the disk is nearly full, so that those which run can end.
fn check_room(farm: &Farm) -> Result<(), Refusal> {
    let free = farm
        .directory
        .free_bytes()
        .map_err(|error| refusal::internal("see how much room the disk has", &error))?;
    if FREE_BYTES_MIN <= free {
        return Ok(());
    }
    Err(refusal::exhausted(format!(
        "the coordinator's disk has {free} bytes left, and takes builds from {FREE_BYTES_MIN} on; make room in \
         `{}`",
        farm.directory.path().display()
    )))
}

/// Reads and plans a buildspec; every mistake is named at once.
async fn plan(build: &SubmitBuild, farm: &Farm) -> Result<JobGraph, Refusal> {
    let turn = farm.planning.acquire().await;
    let _turn = turn.expect("the semaphore is never closed");
    let text = build.buildspec.clone();
    let request = PlanRequest {
        variables: build.variables.clone(),
        batch: build.batch,
        no_cache: build.no_cache,
        ..PlanRequest::default()
    };
    let planned = spawn_blocking(move || {
        let parsed = buildspec::parse(&text);
        let Some(spec) = parsed.spec else {
            return Err(parsed.diagnostics);
        };
        buildspec::plan(&spec, &request).map_err(|error| error.diagnostics())
    });
    let planned = planned.await.expect("reading a buildspec does not panic");
    planned.map_err(|diagnostics| refusal::invalid(described(&build.buildspec_path, &diagnostics)))
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

/// A source, and whose it is.
struct HeldSource {
    namespace: Namespace,
    team: Team,
    trust: Trust,
    tree: TreeRef,
}

impl HeldSource {
    /// Puts the source under the key of `build` at the cache: from then on all of it is there, and stays.
    /// The cache checks that the team may read every chunk of it.
    async fn hold(self, farm: &Farm, build: BuildId) -> Result<(), Refusal> {
        let client = farm.cache.client().await;
        let client = client.map_err(|error| refusal::unavailable(error.to_string()))?;
        let key = EntryKey {
            namespace: self.namespace,
            path: keys::source(build),
        };
        let entry = Entry {
            blobs: Vec::new(),
            trees: vec![self.tree],
            outlines: Vec::new(),
            trust: self.trust,
            team: self.team,
            written: clock::wall(),
        };
        match client.put_entry(key, entry, false).await {
            Ok(_) => Ok(()),
            // What the cache says of the source is for the client.
            Err(CacheError::Refused { source, .. }) => Err(source),
            Err(error) => {
                warn!(%build, error = %Chain(&error), "failed to hold a source at the cache");
                Err(refusal::unavailable(
                    "the cache did not answer the coordinator; nothing was submitted",
                ))
            }
        }
    }
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
    fn variables_that_no_process_could_have_are_refused() {
        let check = |name: &str, value: &str| {
            let variables = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            check_variables(&variables).map_err(|refusal| refusal.message)
        };
        assert_eq!(check("A", "b=c\n"), Ok(()));
        for (name, value) in [("", "x"), ("A=B", "x"), ("A", "\0")] {
            assert!(check(name, value).unwrap_err().contains("cannot be set"));
        }
        let message = check("A", &"x".repeat(VARIABLE_BYTES_MAX)).unwrap_err();
        assert!(message.contains("262145 bytes"), "{message}");
    }
}
