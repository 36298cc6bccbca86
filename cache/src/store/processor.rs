//! Whether this processor has the instructions that RocksDB is compiled for (`.cargo/config.toml`).

use super::error::OpenStoreError;

/// Looks, so that a store which would end with an illegal instruction does not begin.
///
/// # Errors
///
/// [`OpenStoreError::Processor`] if one is missing.
#[cfg(target_arch = "x86_64")]
pub(super) fn check() -> Result<(), OpenStoreError> {
    let needed = [
        ("SSE 4.2", std::arch::is_x86_feature_detected!("sse4.2")),
        (
            "PCLMULQDQ",
            std::arch::is_x86_feature_detected!("pclmulqdq"),
        ),
    ];
    match needed.into_iter().find(|(_, is_there)| !is_there) {
        Some((missing, _)) => Err(OpenStoreError::Processor { missing }),
        None => Ok(()),
    }
}

/// Elsewhere nothing is needed that not all have.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const fn check() -> Result<(), OpenStoreError> {
    Ok(())
}
