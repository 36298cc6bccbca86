//! docker: which projects the worker's owner lets use it, and what is said to the others.
//!
//! Whoever may use the socket is root on the worker's machine, and sees all that runs there.

use std::path::{Path, PathBuf};

use protocol::name::{ProjectName, Team};

/// Where commands find the socket.
pub(crate) const SOCKET: &str = "/run/docker.sock";

/// Who may use the docker of the worker's machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Docker {
    /// Its socket.
    pub(crate) socket: PathBuf,
    /// The projects that may use it, as `TEAM/PROJECT`.
    pub(crate) projects: Vec<String>,
}

impl Docker {
    /// The socket, for a project that may use it; `None`: this one may not.
    pub(crate) fn socket_for(&self, team: &Team, project: &ProjectName) -> Option<&Path> {
        let may = self.projects.contains(&name(team, project));
        may.then_some(self.socket.as_path())
    }

    /// What is said after a command that failed and calls docker, if its project may not use it; `None`:
    /// nothing.
    pub(crate) fn hint(
        &self,
        command: &str,
        (team, project): (&Team, &ProjectName),
    ) -> Option<String> {
        if self.socket_for(team, project).is_some() || !calls_docker(command) {
            return None;
        }
        Some(format!(
            "Hint: builds have no docker unless the worker's owner passes them its socket: `docker_projects = \
             [\"{}\"]` in `[worker]` of the worker's settings",
            name(team, project)
        ))
    }
}

fn name(team: &Team, project: &ProjectName) -> String {
    format!("{team}/{project}")
}

/// Whether a command calls docker, in whatever it does else.
fn calls_docker(command: &str) -> bool {
    let mut words = command.split(|c: char| c.is_whitespace() || ";&|(){}`\"'$".contains(c));
    words.any(|word| {
        let program = word.rsplit('/').next().unwrap_or_default();
        matches!(program, "docker" | "docker-compose" | "dockerd")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_projects_that_are_named_with_their_team_may_use_it_and_the_others_get_a_hint() {
        let docker = Docker {
            socket: "/var/run/docker.sock".into(),
            projects: vec!["red/shop".to_owned()],
        };
        let (red, blue): (Team, Team) = ("red".parse().unwrap(), "blue".parse().unwrap());
        let shop = "shop".parse().unwrap();
        assert!(docker.socket_for(&red, &shop).is_some());
        assert!(docker.socket_for(&blue, &shop).is_none());
        assert_eq!(docker.hint("docker build .", (&red, &shop)), None);
        let hint = docker.hint("docker build .", (&blue, &shop)).unwrap();
        assert!(hint.contains("[\"blue/shop\"]"), "{hint}");
        assert_eq!(docker.hint("make", (&blue, &shop)), None);
    }

    #[test]
    fn docker_is_found_in_commands_as_people_write_them() {
        for yes in [
            "docker ps",
            "cd a && docker build .",
            "$(docker images)",
            "/usr/bin/docker run x",
            "docker-compose up",
        ] {
            assert!(calls_docker(yes), "{yes}");
        }
        for no in ["echo mydocker", "cat docker.txt", "make docker-image"] {
            assert!(!calls_docker(no), "{no}");
        }
    }
}
