//! `run-as`: another user than root for the commands of a phase.
//!
//! Users are those of the sandbox's own `/etc/passwd` and `/etc/group`, which an earlier phase may have
//! changed. They are read here and not by the C library, which would load programs of the sandbox into its
//! init.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::{
    fs::{Gid, Uid},
    thread::{set_thread_gid, set_thread_groups, set_thread_uid},
};

/// How many bytes of `/etc/passwd` and of `/etc/group` are read: tens of thousands of users.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// How deep the rights on the source go: deeper than sources are, and no loop of mounts.
const DEPTH_MAX: usize = 64;

/// Who runs commands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct User {
    uid: u32,
    gid: u32,
    /// The groups that it is in, its own included.
    groups: Vec<u32>,
}

impl User {
    /// The user with this name; `None`: there is none.
    pub(super) fn named(name: &str) -> Option<Self> {
        let [passwd, group] = ["/etc/passwd", "/etc/group"].map(|path| read(Path::new(path)));
        find(name, &passwd, &group)
    }

    /// Whether it is root, who needs no rights.
    pub(super) const fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// The user's and its group's number.
    pub(super) fn owner(&self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }

    /// The user as the calls of [`become_user`] take it.
    pub(super) fn identity(&self) -> Identity {
        Identity {
            uid: Uid::from_raw(self.uid),
            gid: Gid::from_raw(self.gid),
            groups: self.groups.iter().map(|&gid| Gid::from_raw(gid)).collect(),
        }
    }
}

/// A user as system calls take it.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

/// Makes the calling process one of the user's. Only makes system calls.
pub(super) fn become_user(identity: &Identity) -> io::Result<()> {
    set_thread_groups(&identity.groups)?;
    set_thread_gid(identity.gid)?;
    set_thread_uid(identity.uid)?;
    Ok(())
}

/// Lets all users read what is below `directory`, and execute what its owner may: what `run-as` grants; and
/// lets them get there through what is in `own`, which is the unit's. What cannot be changed stays.
pub(super) fn grant(directory: &Path, own: &Path) {
    let above = directory.ancestors().skip(1);
    for above in above.take_while(|above| above.starts_with(own)) {
        add(above, 0o001);
    }
    let mut pending = vec![(directory.to_owned(), 0)];
    while let Some((directory, depth)) = pending.pop() {
        add(&directory, 0o005);
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < DEPTH_MAX => {
                    pending.push((entry.path(), depth + 1));
                }
                Ok(kind) if kind.is_file() => {
                    let mode = entry.metadata().map_or(0, |stat| stat.mode());
                    let executes = if mode & 0o111 == 0 { 0 } else { 0o001 };
                    add(&entry.path(), 0o004 | executes);
                }
                _ => {}
            }
        }
    }
}

/// Adds `bits` to a mode, if they are not there.
fn add(path: &Path, bits: u32) {
    let Ok(stat) = fs::symlink_metadata(path) else {
        return;
    };
    if stat.mode() & bits != bits && !stat.is_symlink() {
        let mode = Permissions::from_mode(stat.mode() & 0o7777 | bits);
        let _kept_as_it_was = fs::set_permissions(path, mode);
    }
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    drop(read);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The user `name`, by the contents of the two files.
fn find(name: &str, passwd: &str, group: &str) -> Option<User> {
    let mut users = passwd.lines().map(|line| line.split(':'));
    let mut fields = users.find_map(|mut fields| (fields.next()? == name).then_some(fields))?;
    let _password = fields.next()?;
    // The greatest number is none of a user: system calls take it for "no change".
    let mut number = || fields.next()?.parse().ok().filter(|&id| id != u32::MAX);
    let (uid, gid) = (number()?, number()?);
    let mut groups = vec![gid];
    for line in group.lines() {
        let mut fields = line.split(':').skip(2);
        let (Some(gid), Some(members)) = (fields.next(), fields.next()) else {
            continue;
        };
        if let Ok(gid) = gid.parse()
            && members.split(',').any(|member| member == name)
            && !groups.contains(&gid)
        {
            groups.push(gid);
        }
    }
    Some(User { uid, gid, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken:x\nci:x:1000:1001:,,,:/home/ci:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nci:x:1001:\ndocker:x:999:ci,other\nodd\ncid:x:7:cid\n";

    #[test]
    fn a_user_is_in_its_own_group_and_in_those_that_name_it() {
        let user = find("ci", PASSWD, GROUP).unwrap();
        assert_eq!((user.uid, user.gid), (1000, 1001));
        assert_eq!(user.groups, [1001, 999]);
        assert!(find("root", PASSWD, GROUP).unwrap().is_root());
    }

    #[test]
    fn who_is_not_in_the_file_or_only_in_part_is_nobody() {
        for name in ["c", "cid", "broken", "", "1000"] {
            assert_eq!(find(name, PASSWD, GROUP), None, "{name}");
        }
    }

    #[test]
    fn others_may_read_everything_and_execute_what_the_owner_may() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join("a").join(name);
        fs::create_dir_all(path("b")).unwrap();
        fs::write(path("b/text"), "").unwrap();
        fs::write(path("b/tool"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", path("link")).unwrap();
        let set = |name: &str, mode| fs::set_permissions(path(name), Permissions::from_mode(mode));
        set("b/text", 0o600).unwrap();
        set("b/tool", 0o700).unwrap();
        set("b", 0o700).unwrap();
        grant(&path(""), root.path());
        let mode = |name: &str| fs::metadata(path(name)).unwrap().mode() & 0o7777;
        let modes = ["b", "b/text", "b/tool"].map(mode);
        assert_eq!(modes, [0o705, 0o604, 0o705]);
    }
}
