//! How members and join tokens are shown.

use protocol::message::client::{MemberSummary, TokenSummary};

use super::{json_line, out, table::Table, text};
use crate::error::CommandError;

/// `grange member list`.
pub(crate) fn members(members: &[MemberSummary], json: bool) -> Result<(), CommandError> {
    if json {
        return members.iter().try_for_each(json_line);
    }
    let mut table = Table::new(["NAME", "ROLE", "TEAM", "JOINED", "CERTIFICATE ENDS"]);
    for member in members {
        table.row([
            member.identity.name.clone(),
            member.identity.role.to_string(),
            member.identity.team.to_string(),
            text::at(member.joined),
            text::at(member.valid_until),
        ]);
    }
    out::print(&table.text())
}

/// `grange token list`.
pub(crate) fn tokens(tokens: &[TokenSummary], json: bool) -> Result<(), CommandError> {
    if json {
        return tokens.iter().try_for_each(json_line);
    }
    let mut table = Table::new(["TOKEN", "ROLE", "TEAM", "ENDS"]);
    for token in tokens {
        table.row([
            token.id.clone(),
            token.role.to_string(),
            token.team.to_string(),
            text::at(token.end),
        ]);
    }
    out::print(&table.text())
}
