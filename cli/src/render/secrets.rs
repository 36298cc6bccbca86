//! How secrets are listed: by name, with who set them, and without what they are.

use protocol::secret::{SecretSummary, SecretVersion};

use super::{json_line, out, table::Table, text};
use crate::error::CommandError;

/// `grange secret list`.
pub(crate) fn secrets(secrets: &[SecretSummary], json: bool) -> Result<(), CommandError> {
    if json {
        return secrets.iter().try_for_each(json_line);
    }
    let mut table = Table::new(["NAME", "PROJECT", "STAGE", "VERSION", "SET BY", "SET AT"]);
    for secret in secrets {
        let project = secret.project.as_ref();
        let project = project.map_or_else(|| "all".to_owned(), ToString::to_string);
        for SecretVersion { id, stage, set, by } in &secret.versions {
            table.row([
                secret.id.to_string(),
                project.clone(),
                stage.map_or("", |stage| stage.as_str()).to_owned(),
                id.clone(),
                by.clone(),
                text::at(*set),
            ]);
        }
    }
    out::print(&table.text())
}
