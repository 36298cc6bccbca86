//! The secrets of a unit on this worker: asked for at the begin of each phase, in memory until its end.
//!
//! What leaves the worker is looked through first: logs are masked, caches, artifacts and reports are not
//! saved where a secret is found, and the state between phases holds references instead of values.

mod asking;
mod forms;
mod key_ids;
mod mask;
mod references;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use protocol::{
    git::is_credential,
    secret::{DeliveredSecret, SecretDelivery, SecretValue},
    snapshot::VARIABLE_BYTES_MAX,
};
use transport::{OpenSealError, Seal};
use zeroize::Zeroizing;

pub(crate) use self::{
    asking::ask,
    key_ids::{KeyIds, without_key_ids},
    mask::{Masker, Patterns, PatternsError},
};
use self::{
    forms::FORM_BYTES_MIN,
    references::{References, UnknownReference},
};
use crate::git::{self, Credential};

/// The shortest value that is looked for in what is to be stored, in bytes. Shorter ones stand there by chance, in
/// base64 at the latest: a file of some megabytes has most runs of four characters.
const STORED_BYTES_MIN: usize = 8;

/// The secrets of a unit.
pub(crate) struct UnitSecrets {
    delivered: Vec<DeliveredSecret>,
    patterns: Arc<Patterns>,
    /// What is looked for in what is to be stored; made when something is.
    stored: OnceLock<Arc<Patterns>>,
    references: References,
    seal: Seal,
}

impl UnitSecrets {
    /// Makes ready what looks for them. Large ones take a while: blocks.
    ///
    /// # Errors
    ///
    /// If they are too large to be looked for.
    pub(crate) fn new(delivery: SecretDelivery) -> Result<Self, PatternsError> {
        let SecretDelivery { key, mut secrets } = delivery;
        for secret in &mut secrets {
            add_password(secret);
        }
        Ok(Self {
            patterns: Arc::new(Patterns::new(named(&secrets), FORM_BYTES_MIN)?),
            stored: OnceLock::new(),
            references: References::new(&secrets)?,
            seal: Seal::new(&key),
            delivered: secrets,
        })
    }

    /// What is looked for in what is shown.
    pub(crate) fn patterns(&self) -> &Arc<Patterns> {
        &self.patterns
    }

    /// What is looked for in files that are to be stored: all but values that stand in many by chance. Blocks the
    /// first time.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub(crate) fn stored(&self) -> Result<&Arc<Patterns>, PatternsError> {
        if let Some(stored) = self.stored.get() {
            return Ok(stored);
        }
        let made = Patterns::new(named(&self.delivered), STORED_BYTES_MIN)?;
        Ok(self.stored.get_or_init(|| Arc::new(made)))
    }

    /// The variables that have a secret's value.
    pub(crate) fn variables(&self) -> BTreeMap<String, Vec<u8>> {
        self.values(|variable| !is_credential(variable))
    }

    /// The credentials of sources, by what they are delivered as.
    pub(crate) fn credentials(&self) -> BTreeMap<String, Vec<u8>> {
        self.values(is_credential)
    }

    fn values(&self, is_wanted: impl Fn(&str) -> bool) -> BTreeMap<String, Vec<u8>> {
        let secrets = self.delivered.iter();
        let secrets = secrets.filter(|secret| is_wanted(&secret.variable));
        let value = |secret: &DeliveredSecret| secret.value.expose().to_vec();
        secrets
            .map(|secret| (secret.variable.clone(), value(secret)))
            .collect()
    }

    /// Puts references in the place of values.
    pub(crate) fn hide(&self, variables: &mut BTreeMap<String, Vec<u8>>) {
        for value in variables.values_mut() {
            let hidden = self.references.hidden(value);
            // A long value of many short secrets would not fit any more; it is sealed all the same.
            if hidden.len() as u64 <= VARIABLE_BYTES_MAX {
                *value = hidden;
            }
        }
    }

    /// Puts values in the place of references.
    ///
    /// # Errors
    ///
    /// If one refers to a secret, or a version of one, that the unit does not have.
    pub(crate) fn reveal(
        &self,
        variables: &mut BTreeMap<String, Vec<u8>>,
    ) -> Result<(), UnknownReference> {
        for value in variables.values_mut() {
            *value = self.references.revealed(&self.delivered, value)?;
        }
        Ok(())
    }

    /// Seals what is stored of the build, under its own key.
    pub(crate) fn seal(&self, context: &[u8], plain: &[u8]) -> Vec<u8> {
        self.seal.seal(context, plain)
    }

    /// Opens what was sealed in this build.
    ///
    /// # Errors
    ///
    /// If it was not.
    pub(crate) fn open(
        &self,
        context: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenSealError> {
        self.seal.open(context, sealed)
    }
}

impl fmt::Debug for UnitSecrets {
    /// Says which variables there are, and nothing of what they hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables = self.delivered.iter().map(|secret| &secret.variable);
        f.debug_set().entries(variables).finish()
    }
}

/// Has the password of a credential be a secret by itself: git is given it alone.
fn add_password(secret: &mut DeliveredSecret) {
    if !is_credential(&secret.variable) {
        return;
    }
    let Ok(Credential::Login { password, .. }) = git::read(secret.value.expose()) else {
        return;
    };
    // One that is shorter than any secret would be found everywhere.
    let password = SecretValue::new(password.as_bytes().to_vec());
    secret.parts.extend(password);
}

/// All values, each with the variable of the secret that it is of: the whole ones, and the parts that are secrets
/// by themselves.
fn named(secrets: &[DeliveredSecret]) -> impl Iterator<Item = (&str, &[u8])> {
    secrets.iter().flat_map(|secret| {
        let whole = [&secret.value].into_iter();
        let values = whole.chain(&secret.parts).map(SecretValue::expose);
        values.map(|value| (secret.variable.as_str(), value))
    })
}

#[cfg(test)]
mod tests;
