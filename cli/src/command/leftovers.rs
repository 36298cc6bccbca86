//! What commands leave behind that were killed while they unpacked something.

use std::path::Path;

use cache::materialize::remove_partials;

use crate::render;

/// Removes what commands of this user that are no more left half-unpacked in `directory`.
pub(super) async fn clear(directory: &Path) {
    let left = directory.to_owned();
    let removed = tokio::task::spawn_blocking(move || remove_partials(&left)).await;
    // The new files get there all the same.
    if let Ok(Err(error)) = removed {
        let directory = directory.display();
        render::note(&format!(
            "what an earlier command left in `{directory}` is still there: {error}"
        ));
    }
}
