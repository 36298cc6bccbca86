//! Redirects: directories of an overlay's upper layer whose content lies elsewhere below.
//!
//! A directory of a lower layer that commands renamed is in the upper directory as an empty directory
//! that says where its content is. A capture takes such a subtree from the merged view instead.

use std::{
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Dir, Mode, OFlags, fgetxattr, openat},
    io::Errno,
};

/// Where overlayfs says that a directory's content lies elsewhere.
const REDIRECT: &str = "trusted.overlay.redirect";

/// How deep directories may be nested. The kernel takes paths of 4,096 bytes, so nothing that was made
/// by path is deeper; and each level holds a file open.
const DEPTH_MAX: usize = 512;

/// Why an upper directory could not be looked through. The layer cannot be captured.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// A directory could not be read.
    #[error("failed to look for redirects in `{}`", path.display())]
    Read {
        /// The directory, below the upper one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory is nested too deep.
    #[error("`{}` is nested deeper than {DEPTH_MAX} directories", path.display())]
    TooDeep {
        /// The directory, below the upper one.
        path: PathBuf,
    },
}

/// Whether some directory below `upper` has its content elsewhere.
///
/// # Errors
///
/// If a directory cannot be read.
pub fn upper_has_redirects(upper: &Path) -> Result<bool, RedirectError> {
    Ok(!redirected_directories(upper)?.is_empty())
}

/// The directories below `upper` whose content lies elsewhere, relative to it, in no order. What lies
/// below one of them is not looked at: all of it comes from the merged view.
///
/// # Errors
///
/// If a directory cannot be read.
pub fn redirected_directories(upper: &Path) -> Result<Vec<PathBuf>, RedirectError> {
    let mut found = Vec::new();
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, upper, flags, Mode::empty())
        .and_then(Dir::new)
        .map_err(|errno| read_error(upper, errno))?;
    let mut open = vec![(PathBuf::new(), root)];
    while let Some((path, directory)) = open.last_mut() {
        let Some(entry) = directory.next() else {
            open.pop();
            continue;
        };
        let entry = entry.map_err(|errno| read_error(path, errno))?;
        let name = entry.file_name();
        if !entry.file_type().is_dir() || [c".", c".."].contains(&name) {
            continue;
        }
        let child = path.join(Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())));
        let flags = flags | OFlags::NOFOLLOW;
        let error = |errno| read_error(&child, errno);
        let parent = directory.fd().map_err(error)?;
        let opened = openat(parent, name, flags, Mode::empty()).map_err(error)?;
        match fgetxattr(&opened, REDIRECT, &mut [0_u8; 0][..]) {
            Ok(_) | Err(Errno::RANGE) => found.push(child),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {
                if open.len() == DEPTH_MAX {
                    return Err(RedirectError::TooDeep { path: child });
                }
                let opened = Dir::new(opened).map_err(error)?;
                open.push((child, opened));
            }
            Err(errno) => return Err(error(errno)),
        }
    }
    Ok(found)
}

fn read_error(path: &Path, errno: Errno) -> RedirectError {
    RedirectError::Read {
        path: path.to_owned(),
        source: errno.into(),
    }
}
