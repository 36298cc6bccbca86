//! Projects: which there are, and how often their dependency caches were made invalid.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{
    message::client::{ProjectDetail, ProjectSummary},
    name::{ProjectName, Team},
    project::{PROJECTS_MAX, Project, ProjectSource},
    time::WallTime,
};
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    decide::Turn,
    fact::Fact,
    fold::FoldError,
    state::{Ledger, State},
};

/// What is known of the projects of all teams.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Projects {
    #[serde(default)]
    saved: BTreeMap<Team, BTreeMap<ProjectName, Saved>>,
    /// Of projects that nobody has made, too.
    #[serde(default)]
    generations: BTreeMap<Team, BTreeMap<ProjectName, u64>>,
    /// By the name under which caches are shared.
    #[serde(default)]
    shared: BTreeMap<Team, BTreeMap<ProjectName, u64>>,
}

/// A project that somebody has made.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Saved {
    project: Box<Project>,
    created: WallTime,
    saved: WallTime,
}

/// Writes what images of the ledger may share.
pub(crate) fn plain<S: Serializer>(
    projects: &Arc<Projects>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    projects.as_ref().serialize(serializer)
}

impl Projects {
    /// A project that somebody has made.
    fn get(&self, team: &Team, name: &ProjectName) -> Option<&Saved> {
        self.saved.get(team)?.get(name)
    }

    /// How often the dependency caches of a project were made invalid.
    pub(crate) fn generation(&self, team: &Team, project: &ProjectName) -> u64 {
        generation(&self.generations, team, project)
    }

    /// How often the dependency caches that are shared under a name were made invalid.
    pub(crate) fn shared_generation(&self, team: &Team, namespace: &ProjectName) -> u64 {
        generation(&self.shared, team, namespace)
    }
}

fn generation(
    of: &BTreeMap<Team, BTreeMap<ProjectName, u64>>,
    team: &Team,
    name: &ProjectName,
) -> u64 {
    let of = of.get(team).and_then(|of| of.get(name));
    of.copied().unwrap_or(0)
}

/// Adds a fact about projects; others change nothing.
pub(crate) fn fold(ledger: &mut Ledger, fact: &Fact) -> Result<(), FoldError> {
    let projects = Arc::make_mut(&mut ledger.projects);
    match fact {
        Fact::ProjectSaved { team, project, at } => {
            let of = projects.saved.entry(team.clone()).or_default();
            let created = of.get(&project.name).map_or(*at, |known| known.created);
            let saved = Saved {
                project: project.clone(),
                created,
                saved: *at,
            };
            of.insert(project.name.clone(), saved);
        }
        Fact::ProjectDeleted { team, project, .. } => {
            if let Some(of) = projects.saved.get_mut(team) {
                of.remove(project);
                if of.is_empty() {
                    projects.saved.remove(team);
                }
            }
        }
        Fact::CachesInvalidated {
            team,
            project,
            generation,
            shared,
            ..
        } => {
            let of = projects.generations.entry(team.clone()).or_default();
            of.insert(project.clone(), *generation);
            if let Some((namespace, generation)) = shared {
                let of = projects.shared.entry(team.clone()).or_default();
                of.insert(namespace.clone(), *generation);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Makes a project, or makes it anew.
pub(crate) fn save(turn: &mut Turn<'_>, team: Team, project: Box<Project>, is_there: bool) {
    let projects = &turn.state.ledger.projects;
    let known = projects.get(&team, &project.name).is_some();
    let count = projects.saved.get(&team).map_or(0, BTreeMap::len);
    if known == is_there && (is_there || count < PROJECTS_MAX) && project.check().is_ok() {
        let at = turn.now.wall;
        turn.record(Fact::ProjectSaved { team, project, at });
    }
}

/// Forgets a project.
pub(crate) fn delete(turn: &mut Turn<'_>, team: Team, project: ProjectName) {
    if turn.state.ledger.projects.get(&team, &project).is_some() {
        let at = turn.now.wall;
        turn.record(Fact::ProjectDeleted { team, project, at });
    }
}

/// Lets builds that are taken from now on find none of the dependency caches that there are.
pub(crate) fn invalidate_caches(turn: &mut Turn<'_>, team: Team, project: ProjectName) {
    let projects = &turn.state.ledger.projects;
    let generation = projects.generation(&team, &project).saturating_add(1);
    let known = projects.get(&team, &project);
    let namespace = known.and_then(|known| known.project.cache.namespace.clone());
    let shared = namespace.map(|name| {
        let generation = projects.shared_generation(&team, &name).saturating_add(1);
        (name, generation)
    });
    let at = turn.now.wall;
    turn.record(Fact::CachesInvalidated {
        team,
        project,
        generation,
        shared,
        at,
    });
}

/// The projects of a team, by name.
pub fn projects(state: &State, team: &Team) -> Vec<ProjectSummary> {
    let of = state.ledger.projects.saved.get(team);
    let saved = of.into_iter().flat_map(BTreeMap::values);
    let summary = |saved: &Saved| ProjectSummary {
        name: saved.project.name.clone(),
        description: saved.project.description.clone(),
        repository: match &saved.project.source {
            ProjectSource::Upload => None,
            ProjectSource::Git(git) => Some(git.url.clone()),
            ProjectSource::Archive(archive) => Some(archive.url.clone()),
        },
        saved: saved.saved,
        builds: last_number(state, team, &saved.project.name),
    };
    saved.map(summary).collect()
}

/// What is known of a project; `None`: nobody has made it.
pub fn project(state: &State, team: &Team, name: &ProjectName) -> Option<ProjectDetail> {
    let projects = &state.ledger.projects;
    let saved = projects.get(team, name)?;
    Some(ProjectDetail {
        project: Project::clone(&saved.project),
        created: saved.created,
        saved: saved.saved,
        builds: last_number(state, team, name),
        cache_generation: projects.generation(team, name),
    })
}

/// Whether somebody has made the project, or there was a build of it.
pub fn knows_project(state: &State, team: &Team, name: &ProjectName) -> bool {
    state.ledger.projects.get(team, name).is_some() || 0 < last_number(state, team, name)
}

/// How many builds of a project have not ended.
pub fn active_of_project(state: &State, team: &Team, project: &ProjectName) -> usize {
    let active = state.ledger.index.dependents.keys();
    let of = |build: &&protocol::build::BuildId| {
        let known = state.ledger.builds.get(build);
        known.is_some_and(|known| {
            known.submission.project == *project && known.submission.team == *team
        })
    };
    active.filter(of).count()
}

fn last_number(state: &State, team: &Team, project: &ProjectName) -> u64 {
    let of = state
        .ledger
        .numbers
        .get(team)
        .and_then(|of| of.get(project));
    of.copied().unwrap_or(0)
}
