//! Requests about secrets: set, listed and deleted by members of a team. Values come in, and none goes out.

use std::sync::Arc;

use protocol::{
    access::Identity,
    message::{
        Refusal,
        client::{ClientReply, ClientRequest},
    },
    name::{ProjectName, Team},
    secret::{SecretId, SecretValue},
};
use tokio::task::spawn_blocking;
use tracing::info;

use super::refusal;
use crate::{
    clock,
    farm::Farm,
    secrets::{ChangeError, Place},
};

/// Answers a request about secrets; others are refused.
pub(super) async fn answer(
    request: &ClientRequest,
    identity: &Identity,
    farm: &Arc<Farm>,
) -> Result<ClientReply, Refusal> {
    match request {
        ClientRequest::SetSecret { project, id, value } => {
            let place = place(identity, project.as_ref(), id);
            set(farm, place, value.clone(), identity).await
        }
        ClientRequest::Secrets { project } => {
            list(farm, identity.team.clone(), project.clone()).await
        }
        ClientRequest::DeleteSecret { project, id } => {
            delete(farm, place(identity, project.as_ref(), id), identity).await
        }
        _ => Err(refusal::invalid("it is not about secrets")),
    }
}

/// Where a secret is that a member names.
fn place(identity: &Identity, project: Option<&ProjectName>, id: &SecretId) -> Place {
    Place {
        team: identity.team.clone(),
        project: project.cloned(),
        id: id.clone(),
    }
}

/// Adds a version to a secret.
async fn set(
    farm: &Arc<Farm>,
    place: Place,
    value: SecretValue,
    by: &Identity,
) -> Result<ClientReply, Refusal> {
    let (secrets, at) = (Arc::clone(&farm.secrets), place.clone());
    let audit = (format!("{} {}", by.role, by.name), clock::wall());
    let set = spawn_blocking(move || secrets.set(at, value, audit)).await;
    let version = set
        .expect("setting a secret does not panic")
        .map_err(|error| refused("set a secret", &place, &error))?;
    let project = place.project.as_ref().map(ToString::to_string);
    info!(secret = %place.id, team = %place.team, project, %by, version, "secret set");
    Ok(ClientReply::SecretSet(version))
}

/// The secrets of a team, without their values.
async fn list(
    farm: &Arc<Farm>,
    team: Team,
    project: Option<ProjectName>,
) -> Result<ClientReply, Refusal> {
    let secrets = Arc::clone(&farm.secrets);
    let listed = spawn_blocking(move || secrets.list(&team, project.as_ref())).await;
    listed
        .expect("listing secrets does not panic")
        .map(ClientReply::Secrets)
        .map_err(|error| refusal::internal("list secrets", &error))
}

/// Deletes a secret.
async fn delete(farm: &Arc<Farm>, place: Place, by: &Identity) -> Result<ClientReply, Refusal> {
    let (secrets, at) = (Arc::clone(&farm.secrets), place.clone());
    let deleted = spawn_blocking(move || secrets.delete(&at)).await;
    deleted
        .expect("deleting a secret does not panic")
        .map_err(|error| refused("delete a secret", &place, &error))?;
    let project = place.project.as_ref().map(ToString::to_string);
    info!(secret = %place.id, team = %place.team, project, %by, "secret deleted");
    Ok(ClientReply::Done)
}

fn refused(what: &'static str, place: &Place, error: &ChangeError) -> Refusal {
    match error {
        ChangeError::Unknown => {
            let of = match &place.project {
                Some(project) => format!("project `{project}`"),
                None => format!("team `{}` itself", place.team),
            };
            refusal::not_found(format!(
                "there is no secret `{}` of {of}; `grange secret list` lists all",
                place.id
            ))
        }
        ChangeError::NoRoom(why) => refusal::exhausted(why.to_string()),
        ChangeError::Vault(error) => refusal::internal(what, error),
    }
}
