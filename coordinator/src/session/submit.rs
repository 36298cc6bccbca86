//! Taking builds: the buildspec is read and planned here, whatever the client made of it, and the source
//! is held at the cache before anybody is told that the build was taken.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{
    access::Identity,
    blob::TreeRef,
    build::BuildId,
    digest::Digest,
    graph::JobGraph,
    message::{
        Refusal,
        client::{
            BUILDSPEC_BYTES_MAX, PRIORITY_MAX, PRIORITY_MIN, SUBMITTED_VARIABLES_MAX, SubmitBuild,
            Submitted,
        },
    },
    name::{Namespace, ProjectName, Team},
    project::{Project, Recipe},
};
use scheduler::{Event, State, Submission};
use tracing::info;

use super::{
    held_source::HeldSource,
    plan::{PlanningError, needs_source, plan},
    recipe::{fetching, origins, recipe, terms, to_fetch},
    refusal,
};
use crate::farm::Farm;

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
    let id = id_of(&identity.team, build.id);
    if let Some(submitted) = known(farm, id, identity).await? {
        return Ok(submitted);
    }
    check_room(farm)?;
    let (of, name) = (identity.team.clone(), build.project.clone());
    let known = move |state: &State| {
        let project = scheduler::project(state, &of, &name).map(|known| known.project);
        (project, scheduler::active_of_project(state, &of, &name))
    };
    let (project, active) = farm.dispatcher.ask(known).await?;
    let project = project.unwrap_or_else(|| Project::new(build.project.clone()));
    check_concurrency(&project, active)?;
    let recipe = recipe(build, &project)?;
    let mut terms = terms(&project);
    terms.debug = build.debug;
    terms.batch = build.batch.then(|| project.batch.clone());
    let namespace = Namespace::from(identity.team.clone());
    let held = |tree: &TreeRef| HeldSource {
        namespace: namespace.clone(),
        team: identity.team.clone(),
        trust: identity.role.trust(),
        trees: vec![tree.clone()],
    };
    let fetch = to_fetch(build, &project)?;
    let graph = match &fetch {
        Some(fetch) => {
            terms.recipe = Some(Box::new(recipe));
            (terms.origin, terms.secondary) = origins(fetch);
            fetching(fetch)
        }
        None => plan_at_once(build, &recipe, (id, farm), held).await?,
    };
    let weight = (identity.team.clone(), graph.weight());
    check_weight(farm, weight.clone()).await?;
    if let Some(source) = &build.source {
        held(source).hold(farm, id, true).await?;
    }
    let jobs = graph.jobs.len();
    let submission = Submission {
        build: id,
        team: identity.team.clone(),
        namespace: namespace.clone(),
        project: build.project.clone(),
        trust: identity.role.trust(),
        initiator: identity.name.clone(),
        source: build.source.clone(),
        source_version: build
            .source_version
            .clone()
            .filter(|_| build.source.is_some()),
        graph,
        reruns: build.reruns.clone(),
        priority: build.priority,
        terms,
    };
    let candidate = Candidate {
        id,
        weight,
        retried: None,
        crowd: project.concurrent_builds_max,
    };
    let submitted = take(farm, Event::Submit(Box::new(submission)), candidate).await?;
    info!(build = %id, project = %build.project, number = submitted.number, jobs, "build submitted");
    Ok(submitted)
}

/// Plans a build whose source was uploaded.
async fn plan_at_once(
    build: &SubmitBuild,
    recipe: &Recipe,
    (id, farm): (BuildId, &Arc<Farm>),
    held: impl Fn(&TreeRef) -> HeldSource,
) -> Result<JobGraph, Refusal> {
    let source = build.source.as_ref();
    let is_held = source.filter(|_| needs_source(recipe));
    if let Some(source) = is_held {
        // The cache checks that the team may read it, before anybody reads it for the team.
        held(source).hold(farm, id, true).await?;
    }
    let planned = plan(recipe, source, farm).await;
    // What is held for a build that is not taken is found by the sweep: it may be taken yet, when it is
    // said again.
    planned.map_err(|error| match error {
        PlanningError::Buildspec(message) => refusal::invalid(message),
        PlanningError::Cache(message) => refusal::unavailable(message),
    })
}

/// Refuses a build while as many of its project are there as may be.
fn check_concurrency(project: &Project, active: usize) -> Result<(), Refusal> {
    match project.concurrent_builds_max {
        Some(max) if usize::try_from(max).is_ok_and(|max| max <= active) => {
            Err(crowded(&project.name, max))
        }
        _ => Ok(()),
    }
}

fn crowded(project: &ProjectName, max: u32) -> Refusal {
    refusal::exhausted(format!(
        "Cannot have more than {max} builds in queue for the project `{project}`; wait until one has ended, or \
         stop one"
    ))
}

/// Takes a build again, from the same source and with the same jobs.
pub(crate) async fn retry(
    (build, drawn): (BuildId, BuildId),
    identity: &Identity,
    farm: &Arc<Farm>,
) -> Result<Submitted, Refusal> {
    let id = id_of(&identity.team, drawn);
    if let Some(submitted) = known(farm, id, identity).await? {
        return Ok(submitted);
    }
    check_room(farm)?;
    let known = farm.dispatcher.ask(move |state| {
        let submission = scheduler::submission(state, build)?;
        let secondary = submission.terms.secondary.values();
        let secondary = secondary.filter_map(|origin| origin.tree.clone());
        let source = HeldSource {
            namespace: submission.namespace.clone(),
            team: submission.team.clone(),
            trust: submission.trust,
            trees: submission.source.iter().cloned().chain(secondary).collect(),
        };
        let max = submission.terms.concurrent_max;
        let active = scheduler::active_of_project(state, &submission.team, &submission.project);
        let project = submission.project.clone();
        let crowd = max.filter(|max| usize::try_from(*max).is_ok_and(|max| max <= active));
        let crowd = crowd.map(|max| crowded(&project, max));
        Some(((source, crowd, max), scheduler::weight(state, build)?))
    });
    let ((source, crowd, max), weight) = known.await?.ok_or_else(|| deleted(build))?;
    if let Some(refused) = crowd {
        return Err(refused);
    }
    check_weight(farm, weight.clone()).await?;
    source.hold(farm, id, false).await?;
    let event = Event::Retry {
        build,
        retry: id,
        initiator: identity.name.clone(),
    };
    let candidate = Candidate {
        id,
        weight,
        retried: Some(build),
        crowd: max,
    };
    let submitted = take(farm, event, candidate).await?;
    info!(build = %id, retry_of = %build, number = submitted.number, "build submitted again");
    Ok(submitted)
}

/// The id of the build that a team's client calls `drawn`: the same for whoever says it again, and such that
/// no team can name a build of another, gone ones included, by which their logs lie on the disk.
fn id_of(team: &Team, drawn: BuildId) -> BuildId {
    let mut named = team.as_str().as_bytes().to_vec();
    named.push(0);
    named.extend(drawn.0.to_be_bytes());
    let digest = Digest::of(&named);
    let (bits, _) = digest
        .hash()
        .split_first_chunk()
        .expect("a hash has 32 bytes");
    BuildId::from_random(*bits)
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
    /// Whose it is, and what its graph weighs.
    weight: (Team, u64),
    /// The build that it is to run again.
    retried: Option<BuildId>,
    /// How many builds of its project may be there; `None`: any number.
    crowd: Option<u32>,
}

/// Lets the scheduler take a build whose source is held already.
async fn take(farm: &Farm, event: Event, candidate: Candidate) -> Result<Submitted, Refusal> {
    let Candidate {
        id,
        weight: (team, weight),
        retried,
        crowd,
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
    if let Some(build) = retried.filter(|_| is_gone) {
        return Err(deleted(build));
    }
    Err(match room {
        Err(why) => refusal::exhausted(why.to_string()),
        // There was none a moment ago.
        Ok(()) => match crowd {
            Some(max) => refusal::exhausted(format!(
                "Cannot have more than {max} builds in queue for the project; wait until one has ended"
            )),
            None => refusal::unavailable("there was no room for another build; try again"),
        },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_team_draws_is_another_build_than_what_another_does() {
        let teams: [Team; 2] = ["blue", "red"].map(|name| name.parse().unwrap());
        let [blue, red] = teams.each_ref().map(|team| id_of(team, BuildId(7)));
        assert_ne!(blue, red);
        assert_eq!(blue, id_of(&teams[0], BuildId(7)));
        assert_ne!(
            id_of(&teams[1], blue),
            blue,
            "nobody can name what is another's"
        );
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
