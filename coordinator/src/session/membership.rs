//! Requests about who may join and who has: tokens made and revoked, members revoked. For admins.

use std::{sync::Arc, time::Duration};

use protocol::{
    access::Role,
    message::{Refusal, client::ClientReply},
    name::Team,
};
use tokio::task::spawn_blocking;
use tracing::info;
use transport::JoinToken;

use super::refusal;
use crate::{
    clock,
    farm::Farm,
    members::{AddTokenError, RevokeMemberError, RevokeTokenError},
};

/// Makes a join token.
pub(super) async fn create_token(
    farm: &Arc<Farm>,
    whom: (Team, Role),
    lifetime: Duration,
) -> Result<ClientReply, Refusal> {
    let token = JoinToken::new(farm.authority.fingerprint());
    let (hash, text) = (token.secret_hash(), token.to_string());
    let (team, role) = whom.clone();
    let farm = Arc::clone(farm);
    let add = move || farm.members.add_token(hash, whom, lifetime, clock::wall());
    let added = spawn_blocking(add).await;
    added
        .expect("making a token does not panic")
        .map_err(|error| match error {
            AddTokenError::Role { .. } | AddTokenError::Lifetime { .. } => {
                refusal::invalid(error.to_string())
            }
            AddTokenError::TooMany => refusal::exhausted(error.to_string()),
            AddTokenError::Write { .. } => refusal::internal("make a join token", &error),
        })?;
    info!(%team, %role, "join token made");
    Ok(ClientReply::Token(text))
}

/// The join tokens that can be used.
pub(super) fn tokens(farm: &Farm) -> ClientReply {
    ClientReply::Tokens(farm.members.tokens(clock::wall()))
}

/// Lets a join token be used no more.
pub(super) async fn revoke_token(farm: &Arc<Farm>, named: &str) -> Result<ClientReply, Refusal> {
    // Whoever still has the token may give it whole.
    let token: Option<JoinToken> = named.parse().ok();
    let hash = token.map(|token| token.secret_hash());
    let id = if hash.is_some() { "" } else { named }.to_owned();
    let farm = Arc::clone(farm);
    let revoke = move || farm.members.revoke_token(&id, hash);
    let revoked = spawn_blocking(revoke).await;
    revoked
        .expect("revoking a token does not panic")
        .map_err(|error| match error {
            RevokeTokenError::Unknown { .. } => refusal::not_found(error.to_string()),
            RevokeTokenError::Write { .. } => refusal::internal("revoke a join token", &error),
        })?;
    info!("join token revoked");
    Ok(ClientReply::Done)
}

/// Lets a member's certificates count no more; its connections end.
pub(super) async fn revoke_member(farm: &Arc<Farm>, named: &str) -> Result<ClientReply, Refusal> {
    let (named, farm) = (named.to_owned(), Arc::clone(farm));
    let revoke = move || farm.members.revoke_member(&named, clock::wall());
    let revoked = spawn_blocking(revoke).await;
    let identity =
        revoked
            .expect("revoking a member does not panic")
            .map_err(|error| match error {
                RevokeMemberError::Unknown { .. } => refusal::not_found(error.to_string()),
                RevokeMemberError::Ambiguous { .. } => refusal::invalid(error.to_string()),
                RevokeMemberError::TooMany => refusal::exhausted(error.to_string()),
                RevokeMemberError::Write { .. } => refusal::internal("revoke a member", &error),
            })?;
    info!(%identity, "member revoked");
    metrics::counter!("grange_members_revoked_total").increment(1);
    Ok(ClientReply::Done)
}
