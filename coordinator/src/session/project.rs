//! Requests about projects: they are made, shown and forgotten, and their dependency caches made invalid.

use protocol::{
    access::Identity,
    message::{
        Refusal,
        client::{ClientReply, ClientRequest},
    },
    name::{ProjectName, Team},
    project::{PROJECTS_MAX, Project},
};
use scheduler::{Event, State};
use tracing::info;

use super::{recipe::credentials, refusal};
use crate::farm::Farm;

/// Answers a request about projects.
pub(super) async fn answer(
    request: &ClientRequest,
    identity: &Identity,
    farm: &Farm,
) -> Result<ClientReply, Refusal> {
    let team = identity.team.clone();
    match request {
        ClientRequest::SaveProject { project, is_there } => {
            save(project, (team, *is_there), farm).await
        }
        ClientRequest::Projects => {
            let projects = move |state: &State| scheduler::projects(state, &team);
            let projects = farm.dispatcher.ask(projects).await;
            projects.map(ClientReply::Projects).map_err(Refusal::from)
        }
        ClientRequest::Project(name) => {
            let name = name.clone();
            let project = move |state: &State| scheduler::project(state, &team, &name);
            let project = farm.dispatcher.ask(project).await;
            let project = project.map(|project| ClientReply::Project(project.map(Box::new)));
            project.map_err(Refusal::from)
        }
        ClientRequest::DeleteProject(name) => delete(name, team, farm).await,
        ClientRequest::InvalidateCaches(name) => invalidate(name, team, farm).await,
        _ => Err(refusal::invalid("it is not about a project")),
    }
}

async fn save(
    project: &Project,
    (team, is_there): (Team, bool),
    farm: &Farm,
) -> Result<ClientReply, Refusal> {
    project
        .check()
        .map_err(|error| refusal::invalid(error.to_string()))?;
    credentials(project)?;
    let name = project.name.clone();
    let known = {
        let (team, name) = (team.clone(), name.clone());
        let known = move |state: &State| scheduler::project(state, &team, &name).is_some();
        farm.dispatcher.ask(known).await?
    };
    check_there(&name, (known, is_there))?;
    let event = Event::SaveProject {
        team: team.clone(),
        project: Box::new(project.clone()),
        is_there,
    };
    let (wanted, of) = (project.clone(), team.clone());
    let saved = farm.dispatcher.apply(event, move |state| {
        let there = scheduler::project(state, &of, &wanted.name);
        (
            there.as_ref().is_some_and(|there| there.project == wanted),
            there.is_some(),
        )
    });
    match saved.await? {
        (true, _) => {
            info!(%team, project = %name, "project saved");
            Ok(ClientReply::Done)
        }
        // Somebody else was faster.
        (false, known) if known != is_there => {
            check_there(&name, (known, is_there)).map(|()| ClientReply::Done)
        }
        (false, _) => Err(refusal::exhausted(format!(
            "team {team} has {PROJECTS_MAX} projects, which is as many as it may have; delete some"
        ))),
    }
}

/// Refuses a project that is there, or not, otherwise than whoever saves it says.
fn check_there(name: &ProjectName, standing: (bool, bool)) -> Result<(), Refusal> {
    match standing {
        (true, false) => Err(refusal::precondition(format!(
            "project `{name}` is there already; `grange project update` changes it"
        ))),
        (false, true) => Err(unknown(name)),
        _ => Ok(()),
    }
}

fn unknown(name: &ProjectName) -> Refusal {
    refusal::not_found(format!(
        "no project is called `{name}`; `grange project create` makes one"
    ))
}

async fn delete(name: &ProjectName, team: Team, farm: &Farm) -> Result<ClientReply, Refusal> {
    let known = {
        let (team, name) = (team.clone(), name.clone());
        let known = move |state: &State| scheduler::project(state, &team, &name).is_some();
        farm.dispatcher.ask(known).await?
    };
    if !known {
        return Err(unknown(name));
    }
    let project = name.clone();
    let event = Event::DeleteProject { team, project };
    farm.dispatcher.apply(event, |_| ()).await?;
    info!(project = %name, "project deleted");
    Ok(ClientReply::Done)
}

async fn invalidate(name: &ProjectName, team: Team, farm: &Farm) -> Result<ClientReply, Refusal> {
    let known = {
        let (team, name) = (team.clone(), name.clone());
        let known = move |state: &State| scheduler::knows_project(state, &team, &name);
        farm.dispatcher.ask(known).await?
    };
    if !known {
        return Err(refusal::not_found(format!(
            "no project is called `{name}`, and no build was ever of it"
        )));
    }
    let project = name.clone();
    let event = Event::InvalidateCaches { team, project };
    farm.dispatcher.apply(event, |_| ()).await?;
    info!(project = %name, "dependency caches made invalid");
    Ok(ClientReply::Done)
}
