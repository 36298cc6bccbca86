//! The secrets of a unit: asked for before anything is said or run, and looked for in what is kept.

use std::sync::Arc;

use protocol::{build::Outcome, job::Task, secret::SecretsReply};

use super::Work;
use crate::{
    attempt::Verdict,
    fault::{Fault, blocking},
    secrets::{self, PatternsError, UnitSecrets},
};

impl Work<'_> {
    /// Asks for the secrets of the unit, if it has any, and has the log masked from here on. Gives how the
    /// phase has failed if one of them cannot be had.
    pub(super) async fn learn_secrets(&mut self) -> Result<Option<Verdict>, Fault> {
        if !self.assignment.has_secrets {
            return Ok(None);
        }
        if matches!(self.assignment.task, Task::DownloadSource { .. }) {
            self.say("Decrypting parameter store environment variables")
                .await?;
        }
        match secrets::ask(&mut self.connections, self.assignment.lease).await? {
            SecretsReply::Unresolved(context) => Ok(Some(Verdict {
                outcome: Outcome::Failed,
                context,
            })),
            SecretsReply::Delivered(delivery) => {
                let tried = "make ready to look for secrets";
                let ready = move || {
                    Ok::<_, PatternsError>(match UnitSecrets::new(delivery) {
                        Err(too_large @ PatternsError::TooLarge { .. }) => Err(too_large),
                        made => Ok(made?),
                    })
                };
                let secrets = match blocking(tried, ready).await? {
                    Ok(secrets) => secrets,
                    Err(too_large) => {
                        return Ok(Some(Verdict::client_error(too_large.to_string())));
                    }
                };
                self.log.mask(secrets.patterns()).await;
                self.secrets = Some(Arc::new(secrets));
                Ok(None)
            }
        }
    }

    /// Whether a form of a secret is in a text that is to be kept.
    pub(super) fn holds_secret(&self, text: &str) -> bool {
        self.secret_in(text).is_some()
    }

    /// The variable whose secret is in a text that is to be kept; `None`: none is.
    pub(super) fn secret_in(&self, text: &str) -> Option<&str> {
        let secrets = self.secrets.as_ref()?;
        secrets.patterns().find(text.as_bytes())
    }
}
