//! Who ran what lately: workers that hold the source and the dependency caches of a project, as far as they
//! have not let them go since.

use std::collections::{BTreeMap, VecDeque};

use protocol::name::{ProjectName, Team, WorkerName};

/// How many workers are remembered for each project: some are busy when its next build begins.
const WORKERS_MAX: usize = 4;
/// For how many projects; past it all are forgotten, which costs some restores.
const PROJECTS_MAX: usize = 10_000;

/// Who ran phases of which project, the latest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Acquainted {
    of: BTreeMap<Team, BTreeMap<ProjectName, VecDeque<WorkerName>>>,
    projects: usize,
}

impl Acquainted {
    /// A worker has run a phase.
    pub(super) fn ran(&mut self, team: &Team, project: &ProjectName, worker: &WorkerName) {
        let known = self.workers(team, project).next();
        if known == Some(worker) {
            return;
        }
        if known.is_none() {
            if PROJECTS_MAX <= self.projects {
                *self = Self::default();
            }
            self.projects += 1;
        }
        let of = self.of.entry(team.clone()).or_default();
        let workers = of.entry(project.clone()).or_default();
        workers.retain(|other| other != worker);
        workers.push_front(worker.clone());
        workers.truncate(WORKERS_MAX);
    }

    /// Who ran phases of a project, the latest first.
    pub(super) fn workers(
        &self,
        team: &Team,
        project: &ProjectName,
    ) -> impl Iterator<Item = &WorkerName> {
        let of = self.of.get(team).and_then(|of| of.get(project));
        of.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_few_are_remembered_and_projects_have_a_bound() {
        let mut acquainted = Acquainted::default();
        let team: Team = "red".parse().unwrap();
        let project = |number: usize| format!("p{number}").parse::<ProjectName>().unwrap();
        let worker = |number: usize| format!("w{number}").parse::<WorkerName>().unwrap();
        for number in [1, 2, 3, 4, 5, 3] {
            acquainted.ran(&team, &project(0), &worker(number));
        }
        let known: Vec<_> = acquainted.workers(&team, &project(0)).cloned().collect();
        assert_eq!(known, [3, 5, 4, 2].map(worker));
        for number in 1..=PROJECTS_MAX {
            acquainted.ran(&team, &project(number), &worker(1));
        }
        assert_eq!(acquainted.workers(&team, &project(0)).count(), 0);
        assert_eq!(acquainted.workers(&team, &project(PROJECTS_MAX)).count(), 1);
    }
}
