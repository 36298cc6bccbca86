//! Directories that are put again: what has changed is noticed, what has not is not read.

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::{Put, PutError, blocking, finish, look, put, read};
use crate::{
    capture::{CaptureError, Subject},
    fixture::{Cache, cache, grow_tree},
    index::LocalIndex,
    progress::Progress,
    source::list_source,
    upload::{Sent, WAITING_CHUNKS_MAX, upload_tree},
};

struct Site {
    cache: Cache,
    root: TempDir,
    indices: TempDir,
}

impl Site {
    async fn new() -> Self {
        Self {
            cache: cache().await,
            root: tempfile::tempdir().unwrap(),
            indices: tempfile::tempdir().unwrap(),
        }
    }

    fn index(&self) -> LocalIndex {
        LocalIndex::new(self.indices.path(), &self.subject())
    }

    fn subject(&self) -> Subject {
        Subject::all(self.root.path().to_owned())
    }

    async fn put_with(&self, index: Option<LocalIndex>) -> Put {
        let progress = Progress::default();
        put(&self.cache.client, self.subject(), index, &progress)
            .await
            .unwrap()
    }

    /// Puts the directory as a checkout, with what a build may see of git.
    async fn put_checkout(&self) -> Put {
        let (subject, _) = list_source(self.root.path(), true).unwrap();
        let index = LocalIndex::new(self.indices.path(), &subject);
        let progress = Progress::default();
        put(&self.cache.client, subject, Some(index), &progress)
            .await
            .unwrap()
    }

    async fn put(&self) -> Put {
        self.put_with(Some(self.index())).await
    }

    /// Puts until the files are old enough for an index to tell whether they change.
    async fn put_until_known(&self) -> Put {
        loop {
            let put = self.put().await;
            if put.files_known == put.transfer.files {
                return put;
            }
        }
    }
}

/// Writes a file as somebody would who wants nobody to notice: with the length and the time of before.
fn write_unnoticed(path: &Path, bytes: &str) {
    let before = path.metadata().unwrap();
    assert_eq!(before.size(), bytes.len() as u64);
    fs::write(path, bytes).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_is_not_read_and_gives_the_same_tree() {
    let site = Site::new().await;
    for index in 0..50 {
        fs::write(
            site.root.path().join(format!("f{index}")),
            format!("{index}"),
        )
        .unwrap();
    }
    let first = site.put_with(None).await;
    assert_eq!(first.files_known, 0);
    let again = site.put_until_known().await;
    assert_eq!(again.tree, first.tree);
    assert_eq!(again.transfer.chunks_moved, 0);
    assert_eq!(again.transfer.files, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_while_it_is_read_lies_as_what_is_sent_after_it() {
    let site = Site::new().await;
    grow_tree(site.root.path(), 7, 600);
    let progress = Progress::default();
    let put = put(&site.cache.client, site.subject(), None, &progress).await;
    let put = put.unwrap();
    let now = progress.now();
    assert_eq!(now.bytes_done, now.bytes_total, "all is counted");
    let captured = site.subject().run().unwrap();
    let (after, again) = upload_tree(&site.cache.client, captured, &progress)
        .await
        .unwrap();
    assert_eq!((put.tree, again.chunks_moved), (after, 0));
    assert_eq!(
        (put.transfer.files, put.transfer.bytes, put.transfer.chunks),
        (again.files, again.bytes, again.chunks)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_after_it_was_read_and_before_all_is_put_is_refused() {
    let site = Site::new().await;
    let path = site.root.path().join("file");
    fs::write(&path, "half").unwrap();
    let subject = site.subject();
    // One small file is one chunk, for which there is room.
    let (out, _chunks) = mpsc::channel(WAITING_CHUNKS_MAX);
    let reading = blocking(move || {
        let looked = look(&subject, None).unwrap();
        read(&subject, looked, None, out).unwrap()
    });
    let read = (reading.await, Sent::default());
    fs::write(&path, "half and half").unwrap();
    let progress = Progress::default();
    let whose = (site.subject().into(), Some(site.index()));
    let put = finish(&site.cache.client, whose, read, &progress).await;
    assert!(
        matches!(&put, Err(PutError::Capture(CaptureError::Changed { path })) if path.as_bytes() == b"file"),
        "{put:?}"
    );
    assert!(site.index().whole().is_none(), "nothing refers to it");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_noticed() {
    let site = Site::new().await;
    let path = |name: &str| site.root.path().join(name);
    fs::write(path("file"), "one").unwrap();
    fs::write(path("other"), "other").unwrap();
    fs::create_dir(path("dir")).unwrap();
    let mut last = site.put_until_known().await.tree;
    let changes: [&dyn Fn(); 7] = [
        &|| write_unnoticed(&path("file"), "two"),
        &|| fs::set_permissions(path("file"), fs::Permissions::from_mode(0o700)).unwrap(),
        &|| fs::set_permissions(path("dir"), fs::Permissions::from_mode(0o700)).unwrap(),
        &|| fs::rename(path("other"), path("dir/other")).unwrap(),
        &|| fs::hard_link(path("file"), path("second")).unwrap(),
        &|| {
            let file = File::open(path("file")).unwrap();
            let time = std::time::UNIX_EPOCH + Duration::from_secs(7);
            file.set_modified(time).unwrap();
        },
        &|| fs::remove_file(path("second")).unwrap(),
    ];
    for (number, change) in changes.iter().enumerate() {
        change();
        let put = site.put().await;
        assert_ne!(put.tree, last, "change {number}");
        let whole = site.put_with(None).await;
        assert_eq!(put.tree, whole.tree, "change {number}");
        last = site.put_until_known().await.tree;
        assert_eq!(last, whole.tree, "change {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_read_and_sent() {
    let site = Site::new().await;
    grow_tree(site.root.path(), 5, 400);
    let first = site.put_until_known_or_special().await;
    fs::write(site.root.path().join("new"), "new").unwrap();
    let put = site.put().await;
    assert!(first.transfer.files < put.files_known * 2, "{put:?}");
    assert!(put.transfer.chunks_moved <= 6, "{put:?}");
    assert_eq!(put.tree, site.put_with(None).await.tree);
}

impl Site {
    /// The same for a tree with files that an index never has: those with holes or attributes.
    async fn put_until_known_or_special(&self) -> Put {
        loop {
            let put = self.put().await;
            if 0 < put.files_known && put.transfer.chunks_moved == 0 {
                return put;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dealt_with_is_told_and_what_is_known_is_skipped() {
    let site = Site::new().await;
    fs::write(site.root.path().join("big"), vec![7; 3_000_000]).unwrap();
    fs::write(site.root.path().join("small"), "small").unwrap();
    let progress_of = async || {
        let progress = Progress::default();
        let index = Some(site.index());
        put(&site.cache.client, site.subject(), index, &progress)
            .await
            .unwrap();
        progress.now()
    };
    let first = progress_of().await;
    assert_eq!(
        (first.bytes_done, first.bytes_total),
        (3_000_005, 3_000_005)
    );
    assert!(0 < first.bytes_moved, "{first:?}");
    site.put_until_known().await;
    let again = progress_of().await;
    assert_eq!(again.bytes_moved, 0);
    assert_eq!(again.bytes_skipped, again.bytes_total, "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_is_none() {
    let site = Site::new().await;
    fs::write(site.root.path().join("file"), "one").unwrap();
    let first = site.put_until_known().await;
    for entry in fs::read_dir(site.indices.path()).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let put = site.put().await;
    assert_eq!((put.tree, put.files_known), (first.tree, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cache_has_lost_is_sent_again() {
    let site = Site::new().await;
    fs::write(site.root.path().join("file"), "one").unwrap();
    let first = site.put_until_known().await;
    let other = cache().await;
    let progress = Progress::default();
    let put = put(&other.client, site.subject(), Some(site.index()), &progress).await;
    let put = put.unwrap();
    assert_eq!(put.tree, first.tree);
    assert_eq!(put.transfer.chunks_moved, 4);
    assert_eq!(put.files_known, 1, "it is read only to be sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_that_has_not_changed_is_not_read_and_still_has_no_credentials() {
    let site = Site::new().await;
    let git = site.root.path().join(".git");
    fs::create_dir_all(git.join("refs")).unwrap();
    fs::create_dir_all(git.join("objects")).unwrap();
    fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    let config = git.join("config");
    fs::write(&config, "[credential]\n\thelper = store\n").unwrap();
    fs::write(site.root.path().join("main.rs"), "fn main() {}").unwrap();
    let first = site.put_checkout().await;
    let all = first.transfer.files;
    // The whole directory has another tree, and an index of its own.
    let whole = site.put_until_known().await;
    assert_ne!(whole.tree, first.tree);
    loop {
        let again = site.put_checkout().await;
        assert_eq!(again.tree, first.tree);
        if again.files_known == all {
            break;
        }
    }
    // What stands in the place of the configuration is made anew from what changed.
    fs::write(&config, "[core]\n\tbare = false\n").unwrap();
    let changed = site.put_checkout().await;
    assert_ne!(changed.tree, first.tree);
    assert!(changed.files_known < all);
}
