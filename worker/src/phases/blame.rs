//! Whose doing it is that what a phase left cannot be stored: the commands', or the farm's. Pure.

use std::{error::Error, io};

use cache::{capture::CaptureError, upload::UploadError};

use crate::fault::Fault;

/// Whether it is the commands' doing that what they left cannot be stored: the same would happen on any
/// worker. Commands that run as root leave nothing that the worker cannot read, unless it is another user.
pub(super) fn is_of_the_build(fault: &Fault) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(fault);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<CaptureError>() {
            return match error {
                CaptureError::Name { .. }
                | CaptureError::TooMany
                | CaptureError::TooManyParts { .. }
                | CaptureError::Changed { .. }
                | CaptureError::Tree { .. } => true,
                CaptureError::Read { source, .. } => {
                    source.kind() == io::ErrorKind::PermissionDenied
                }
                _ => false,
            };
        }
        if let Some(error) = error.downcast_ref::<UploadError>() {
            return match error {
                UploadError::Changed { .. } | UploadError::TooLarge { .. } => true,
                UploadError::Read { source, .. } => {
                    source.kind() == io::ErrorKind::PermissionDenied
                }
                UploadError::Cache(_) => false,
            };
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use protocol::path::TreePath;

    use super::*;

    #[test]
    fn what_commands_left_is_theirs_and_what_the_disk_did_is_not() {
        let path = || TreePath::new("opt/x").unwrap();
        let read = |kind: io::ErrorKind| {
            let source = kind.into();
            let path = path();
            Fault::new("capture", CaptureError::Read { path, source })
        };
        assert!(is_of_the_build(&read(io::ErrorKind::PermissionDenied)));
        assert!(!is_of_the_build(&read(io::ErrorKind::Other)));
        assert!(is_of_the_build(&Fault::new(
            "capture",
            CaptureError::TooMany
        )));
        let changed = UploadError::Changed { path: path() };
        let again = Fault::new("store", Fault::new("store", changed));
        assert!(is_of_the_build(&again), "however deep it is");
        let too_large = UploadError::TooLarge {
            what: "attributes",
            bytes: 2,
            limit: 1,
        };
        assert!(is_of_the_build(&Fault::new("store", too_large)));
        let too_many = CaptureError::TooManyParts { parts: 9_000_000 };
        assert!(is_of_the_build(&Fault::new("capture", too_many)));
        assert!(!is_of_the_build(&Fault::new("write the log", "no room")));
    }
}
