//! The secrets of a unit on this worker: asked for at the begin of each phase, in memory until its end.
//!
//! What leaves the worker is looked through first: logs are masked, caches, artifacts and reports are not
//! saved where a secret is found, and the state between phases holds references instead of values.

mod asking;
mod forms;
mod mask;
mod references;

use std::{collections::BTreeMap, sync::Arc};

use protocol::{
    secret::{DeliveredSecret, SecretDelivery, SecretValue},
    snapshot::VARIABLE_BYTES_MAX,
};
use transport::{OpenSealError, Seal};
use zeroize::Zeroizing;

use self::references::{References, UnknownReference};
pub(crate) use self::{
    asking::ask,
    mask::{Masker, Patterns},
};
use crate::fault::{Fault, OrFault as _};

/// The secrets of a unit.
#[derive(Debug)]
pub(crate) struct UnitSecrets {
    delivered: Vec<DeliveredSecret>,
    patterns: Arc<Patterns>,
    references: References,
    seal: Seal,
}

impl UnitSecrets {
    /// Makes ready what looks for them.
    ///
    /// # Errors
    ///
    /// If that cannot be made.
    pub(crate) fn new(delivery: SecretDelivery) -> Result<Self, Fault> {
        let tried = "make ready to look for secrets";
        let SecretDelivery { key, secrets } = delivery;
        let patterns = Patterns::new(values(&secrets).map(|(of, value)| {
            let variable = of.variable.as_str();
            (variable, value.expose())
        }));
        Ok(Self {
            patterns: Arc::new(patterns.or_fault(tried)?),
            references: References::new(&secrets).or_fault(tried)?,
            seal: Seal::new(&key),
            delivered: secrets,
        })
    }

    /// What is looked for.
    pub(crate) fn patterns(&self) -> &Arc<Patterns> {
        &self.patterns
    }

    /// The variables that have a secret's value.
    pub(crate) fn variables(&self) -> BTreeMap<String, Vec<u8>> {
        let secrets = self.delivered.iter();
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

/// All values, each with the secret that it is of: the whole ones, and the parts that are secrets by
/// themselves.
fn values(secrets: &[DeliveredSecret]) -> impl Iterator<Item = (&DeliveredSecret, &SecretValue)> {
    secrets.iter().flat_map(|secret| {
        let whole = [&secret.value].into_iter();
        whole.chain(&secret.parts).map(move |value| (secret, value))
    })
}
