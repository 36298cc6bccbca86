//! The files of a sandbox's shells: the script, the saved variables, the saved directory.
//!
//! Commands can reach the directory, so nothing in it is trusted: files are made anew, links are not
//! followed, and what is read has a limit.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use protocol::{
    job::Shell,
    path::PATH_BYTES_MAX,
    snapshot::{VARIABLE_BYTES_MAX, VARIABLES_MAX},
};
use rustix::{
    fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, openat, unlinkat},
    io::Errno,
};

use super::{
    environment,
    message::{Carried, Trouble},
    script::{self, StatePaths},
};

const SCRIPT: &str = "script.sh";
const VARIABLES: &str = "env.sh";
const NEW_VARIABLES: &str = "env.sh.new";
const NEW_DIRECTORY: &str = "dir.txt.new";

/// How many bytes of variables carry over. A program can be given 2 MiB of arguments and variables; a
/// shell that has more cannot run anything.
const SAVED_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// The directory of the files.
#[derive(Debug)]
pub(super) struct StateDirectory {
    directory: OwnedFd,
    path: PathBuf,
    variables: PathBuf,
    new_variables: PathBuf,
    new_directory: PathBuf,
}

/// What a command left in the directory.
#[derive(Debug)]
pub(super) enum Saved {
    /// Its variables and directory.
    Carried(Carried),
    /// Nothing: it left its shell early.
    Nothing,
    /// Something that cannot be carried over; why, for people.
    Lost(String),
}

impl StateDirectory {
    /// Opens the directory at `path`, as commands see it, and closes it to all other users: variables are in it.
    pub(super) fn open(path: &Path) -> Result<Self, Trouble> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| Trouble::new("open directory", path, errno))?;
        fchmod(&directory, Mode::RWXU)
            .map_err(|errno| Trouble::new("close to others", path, errno))?;
        Ok(Self {
            directory,
            path: path.to_owned(),
            variables: path.join(VARIABLES),
            new_variables: path.join(NEW_VARIABLES),
            new_directory: path.join(NEW_DIRECTORY),
        })
    }

    /// Lets a user put files here: what its shells save.
    pub(super) fn give_to(&self, (uid, gid): (Option<Uid>, Option<Gid>)) -> io::Result<()> {
        Ok(fchown(&self.directory, uid, gid)?)
    }

    /// Where the script is.
    pub(super) fn script(&self) -> PathBuf {
        self.path.join(SCRIPT)
    }

    /// Makes everything ready for a shell that runs `command`.
    pub(super) fn write_command(
        &self,
        carried: &Carried,
        shell: Shell,
        command: &str,
    ) -> Result<(), Trouble> {
        let script = script::command(self.paths(), &carried.directory, command);
        self.write_all(carried, shell, &script)
    }

    /// Makes everything ready for a shell that expands `text` in `directory`.
    pub(super) fn write_expansion(
        &self,
        carried: &Carried,
        shell: Shell,
        (directory, text): (&Path, &str),
    ) -> Result<(), Trouble> {
        let directory = directory.as_os_str().as_encoded_bytes();
        let script = script::expansion(self.paths(), directory, text);
        self.write_all(carried, shell, &script)
    }

    fn paths(&self) -> StatePaths<'_> {
        StatePaths {
            variables: &self.variables,
            new_variables: &self.new_variables,
            new_directory: &self.new_directory,
        }
    }

    fn write_all(&self, carried: &Carried, shell: Shell, script: &[u8]) -> Result<(), Trouble> {
        self.remove(NEW_VARIABLES)?;
        self.remove(NEW_DIRECTORY)?;
        self.write(VARIABLES, &script::exports(&carried.variables, shell))?;
        self.write(SCRIPT, script)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Trouble> {
        self.remove(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&self.directory, name, flags, Mode::from_raw_mode(0o644))
            .map_err(|errno| Trouble::new("create file", self.path.join(name), errno))?;
        File::from(file)
            .write_all(bytes)
            .map_err(|error| Trouble::io("write file", self.path.join(name), &error))
    }

    fn remove(&self, name: &str) -> Result<(), Trouble> {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Trouble::new("remove file", self.path.join(name), errno)),
        }
    }

    /// What the last command saved.
    pub(super) fn saved(&self) -> Saved {
        // The directory is written last: where it is, the variables are whole.
        let directory_bytes_max = PATH_BYTES_MAX as u64 + 1;
        let mut directory = match self.read(NEW_DIRECTORY, directory_bytes_max) {
            Ok(Some(directory)) if directory.last() == Some(&b'\n') => directory,
            Ok(_) => return Saved::Nothing,
            Err(why) => return Saved::Lost(format!("working directory not kept: {why}")),
        };
        directory.pop();
        if directory.first() != Some(&b'/') {
            return Saved::Lost("working directory not kept: `pwd` gave no absolute path".into());
        }
        let variables = match self.read(NEW_VARIABLES, SAVED_BYTES_MAX) {
            Ok(Some(variables)) => variables,
            Ok(None) => return Saved::Nothing,
            Err(why) => return Saved::Lost(format!("variables not kept: {why}")),
        };
        let variables = match environment::parse(&variables) {
            Ok(variables) => variables,
            Err(error) => return Saved::Lost(format!("variables not kept: {error}")),
        };
        if VARIABLES_MAX < variables.len() as u64 {
            return Saved::Lost(format!(
                "variables not kept: there are {}, at most {VARIABLES_MAX} carry over",
                variables.len()
            ));
        }
        let too_long = |value: &[u8]| VARIABLE_BYTES_MAX < value.len() as u64;
        if let Some((name, value)) = variables.iter().find(|(_, value)| too_long(value)) {
            return Saved::Lost(format!(
                "variables not kept: `{name}` has {} bytes, at most {VARIABLE_BYTES_MAX} carry over",
                value.len()
            ));
        }
        Saved::Carried(Carried {
            variables,
            directory,
        })
    }

    /// Reads a file that a command wrote; `None` if it is not there.
    fn read(&self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, String> {
        // Not blocking, should somebody have put a pipe there.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(io::Error::from(errno).to_string()),
        };
        let stat = fstat(&file).map_err(|errno| io::Error::from(errno).to_string())?;
        if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(format!("`{name}` is no file"));
        }
        let mut bytes = Vec::new();
        let mut file = File::from(file).take(bytes_max + 1);
        file.read_to_end(&mut bytes)
            .map_err(|error| error.to_string())?;
        if bytes_max < bytes.len() as u64 {
            return Err(format!("they have more than {bytes_max} bytes"));
        }
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn no_other_user_reads_the_variables_of_commands() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        StateDirectory::open(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    }
}
