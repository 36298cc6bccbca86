//! A history of commits from a seed: what each build looks up, and would make if it is not there.

use cache::{
    eviction::{Random, Zipf},
    hits::{Chunk, Lookup},
};

use super::CHUNK_BYTES;

/// Teams, and projects of each.
pub(crate) const TEAMS: u64 = 3;
const PROJECTS: u64 = 3;
/// How many branches a project has besides the main one, at most.
const BRANCHES_MAX: usize = 3;
/// Of a hundred commits: those that change the lock file, that merge a branch, that begin one, that build
/// again what was built, that make something nobody asks for again.
const LOCK_CHANGES: u64 = 5;
const MERGES: u64 = 8;
const BRANCHES_BEGIN: u64 = 8;
const BUILT_AGAIN: u64 = 10;
const ONCE_ONLY: u64 = 10;

/// The name of a team.
pub(crate) fn team_name(number: u64) -> String {
    format!("team-{number}")
}

/// What a branch has.
#[derive(Clone, Debug)]
struct Branch {
    lock: u64,
    dependencies: Vec<u64>,
    tree: u64,
    objects: Vec<u64>,
}

#[derive(Debug)]
struct Project {
    team: u64,
    project: u64,
    /// The main one first.
    branches: Vec<Branch>,
    /// How long a chunk takes to make: of dependencies, of objects, in milliseconds.
    chunk_millis: (u64, u64),
}

impl Project {
    /// A lookup of what is made from `made_from`. Keys begin with the team, whose namespace they are in.
    fn lookup(&self, kind: &str, made_from: u64, chunks: &[u64], chunk_millis: u64) -> Lookup {
        let team = team_name(self.team);
        let all = format!("{team}/dependency/project-{}/{kind}/", self.project);
        let chunk = |&number| Chunk {
            number: usize::try_from(number).expect("chunks are counted from one on"),
            bytes: CHUNK_BYTES,
        };
        Lookup {
            key: format!("{all}{made_from:x}"),
            fallbacks: vec![all],
            chunks: chunks.iter().map(chunk).collect(),
            made_millis: chunks.len() as u64 * chunk_millis,
            replaces: false,
        }
    }
}

struct Maker {
    random: Random,
    last: u64,
}

impl Maker {
    fn fresh(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn chunks(&mut self, count: u64) -> Vec<u64> {
        (0..count).map(|_| self.fresh()).collect()
    }

    fn happens(&mut self, of_hundred: u64) -> bool {
        self.random.below(100) < of_hundred
    }

    /// Makes so many of a hundred chunks anew, one at least.
    fn change(&mut self, chunks: &mut [u64], of_hundred: u64) {
        let count = (chunks.len() as u64 * of_hundred / 100).max(1);
        for _ in 0..count {
            let at = self.random.below(chunks.len() as u64);
            let fresh = self.fresh();
            if let Some(chunk) = usize::try_from(at).ok().and_then(|at| chunks.get_mut(at)) {
                *chunk = fresh;
            }
        }
    }

    fn project(&mut self, team: u64, project: u64) -> Project {
        let dependencies = 16 + self.random.below(64);
        let objects = 8 + self.random.below(32);
        Project {
            team,
            project,
            branches: vec![Branch {
                lock: self.fresh(),
                dependencies: self.chunks(dependencies),
                tree: self.fresh(),
                objects: self.chunks(objects),
            }],
            chunk_millis: (100 << self.random.below(4), 200 << self.random.below(5)),
        }
    }
}

/// A history of so many commits, the same for each seed.
pub(crate) fn history(seed: u64, commits: usize) -> Vec<Lookup> {
    let mut maker = Maker {
        random: Random(seed),
        last: 0,
    };
    let mut projects = Vec::new();
    for team in 0..TEAMS {
        for project in 0..PROJECTS {
            projects.push(maker.project(team, project));
        }
    }
    // Some projects are worked at much, most little.
    let zipf = Zipf::new(TEAMS * PROJECTS);
    let mut lookups = Vec::new();
    for _ in 0..commits {
        let drawn = zipf.draw(&mut maker.random);
        let at = usize::try_from(drawn).expect("projects are few");
        commit(&mut maker, &mut projects[at], &mut lookups);
    }
    lookups
}

fn commit(maker: &mut Maker, project: &mut Project, lookups: &mut Vec<Lookup>) {
    let count = project.branches.len();
    let drawn = maker.random.below(count as u64);
    let mut on = usize::try_from(drawn).expect("branches are few");
    if maker.happens(MERGES) && 1 < count {
        // The main branch gets what the newest one has: it was built there.
        if let Some(merged) = project.branches.pop() {
            project.branches[0] = merged;
        }
        on = 0;
    } else if maker.happens(BRANCHES_BEGIN) && count <= BRANCHES_MAX {
        project.branches.push(project.branches[0].clone());
        on = count;
    } else if !maker.happens(BUILT_AGAIN) {
        let branch = &mut project.branches[on];
        branch.tree = maker.fresh();
        let changed = if maker.happens(LOCK_CHANGES) {
            branch.lock = maker.fresh();
            maker.change(&mut branch.dependencies, 4);
            40
        } else {
            4 + maker.random.below(12)
        };
        maker.change(&mut branch.objects, changed);
    }
    let (of_dependencies, of_objects) = project.chunk_millis;
    let Branch {
        lock,
        dependencies,
        tree,
        objects,
    } = &project.branches[on];
    lookups.push(project.lookup("dependencies", *lock, dependencies, of_dependencies));
    lookups.push(project.lookup("objects", *tree, objects, of_objects));
    if maker.happens(ONCE_ONLY) {
        let count = 8 + maker.random.below(24);
        let (key, chunks) = (maker.fresh(), maker.chunks(count));
        lookups.push(Lookup {
            fallbacks: Vec::new(),
            ..project.lookup("once", key, &chunks, of_objects)
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_history_follows_from_its_seed_and_has_what_it_says() {
        let lookups = history(7, 400);
        assert_eq!(lookups, history(7, 400));
        assert_ne!(lookups, history(8, 400));
        let of = |part: &str| {
            let keys = lookups.iter().map(|lookup| lookup.key.as_str());
            keys.filter(|key| key.contains(part)).collect::<Vec<_>>()
        };
        let distinct = |keys: Vec<&str>| keys.into_iter().collect::<BTreeSet<_>>().len();
        assert_eq!(of("/dependencies/").len(), 400);
        assert!(
            distinct(of("/dependencies/")) < 60,
            "lock files seldom change"
        );
        assert!(200 < distinct(of("/objects/")), "trees often do");
        assert_eq!(distinct(of("/once/")), of("/once/").len());
        for team in 0..TEAMS {
            let builds = of(&team_name(team)).len();
            assert!(lookups.len() / 20 < builds, "each team builds: {builds}");
        }
    }
}
