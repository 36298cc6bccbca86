//! The commands about who may join the farm, and who has: for its admins.

use protocol::message::client::{ClientReply, ClientRequest};

use super::read::{ask, expect_done};
use crate::{
    args::{FarmArgs, ReadArgs},
    command::Context,
    error::CommandError,
    farm::unexpected,
    render,
};

/// `grange member list`.
///
/// # Errors
///
/// If the farm cannot be reached or refuses.
pub(crate) async fn list(args: &ReadArgs, context: &Context) -> Result<(), CommandError> {
    match ask(&ClientRequest::Members, &args.farm, context).await? {
        ClientReply::Members(members) => render::members(&members, args.json),
        other => Err(unexpected(&other)),
    }
}

/// `grange member revoke`.
///
/// # Errors
///
/// If the farm cannot be reached, or does not know the member.
pub(crate) async fn revoke(
    member: String,
    farm: &FarmArgs,
    context: &Context,
) -> Result<(), CommandError> {
    let request = ClientRequest::RevokeMember(member);
    expect_done(&ask(&request, farm, context).await?)
}

/// `grange token list`.
///
/// # Errors
///
/// If the farm cannot be reached or refuses.
pub(crate) async fn tokens(args: &ReadArgs, context: &Context) -> Result<(), CommandError> {
    match ask(&ClientRequest::Tokens, &args.farm, context).await? {
        ClientReply::Tokens(tokens) => render::tokens(&tokens, args.json),
        other => Err(unexpected(&other)),
    }
}

/// `grange token revoke`.
///
/// # Errors
///
/// If the farm cannot be reached, or does not know the token.
pub(crate) async fn revoke_token(
    token: String,
    farm: &FarmArgs,
    context: &Context,
) -> Result<(), CommandError> {
    let request = ClientRequest::RevokeToken(token);
    expect_done(&ask(&request, farm, context).await?)
}
