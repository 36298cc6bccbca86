//! Archives of all formats, and such as nobody should unpack.

use std::io::Write as _;

use tar::{Builder, EntryType, Header};
use zip::{ZipWriter, write::SimpleFileOptions};

use super::*;

/// An entry of a tar: its name, kind and content or target.
type Made<'a> = (&'a str, EntryType, &'a str);

fn tar_of(entries: &[Made<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(if name.ends_with(".sh") { 0o755 } else { 0o600 });
        // By hand: the library does not write names that lead out.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let is_link = matches!(kind, EntryType::Link | EntryType::Symlink);
        let bytes = if is_link {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            &[]
        } else {
            content.as_bytes()
        };
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn zip_of(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(io::Cursor::new(Vec::new()));
    for (name, content) in entries {
        let mode = if name.ends_with(".sh") { 0o755 } else { 0o644 };
        let options = SimpleFileOptions::default().unix_permissions(mode);
        writer.start_file(*name, options).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Unpacks bytes, and gives the directory that this was to stay in.
fn unpacked(bytes: &[u8], format: ArchiveFormat) -> (tempfile::TempDir, Result<(), UnpackError>) {
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("archive");
    fs::write(&archive, bytes).unwrap();
    let to = directory.path().join("to");
    let done = unpack(&archive, &to, (format, Limits::ALLOWED));
    (directory, done)
}

/// Unpacks a stream of a tar, with limits.
fn streamed(stream: impl Read, limits: Limits) -> Result<(), UnpackError> {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("to");
    let mut to = Target::new(&root, limits).unwrap();
    unpack_tar(stream, &mut to).and_then(|()| to.link_all())
}

const FEW: Limits = Limits {
    entries: 10,
    bytes: 1_000,
    stream: 100_000,
};

/// Bytes that come again and again.
struct Endless {
    bytes: Vec<u8>,
    at: usize,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&self.bytes[self.at..]).read(buffer)?;
        self.at = (self.at + count) % self.bytes.len();
        Ok(count)
    }
}

/// A frame of zstd with one block that is not compressed (RFC 8878, 3.1.1).
fn zst_of(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    assert!(length <= 128 * 1024, "it is more than a block");
    // The last block, of kind 0.
    let block = (length << 3 | 1).to_le_bytes();
    // No flags; a window of a MiB.
    let head = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50];
    [&head[..], &block[..3], bytes].concat()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn check_whole(bytes: &[u8], format: ArchiveFormat) {
    let (directory, done) = unpacked(bytes, format);
    done.unwrap();
    let to = directory.path().join("to");
    assert_eq!(fs::read_to_string(to.join("word")).unwrap(), "first");
    let script = to.join("bin/run.sh");
    let mode = fs::metadata(&script).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    assert_eq!(fs::read_to_string(script).unwrap(), "second");
}

const WHOLE: [Made<'_>; 3] = [
    ("./", EntryType::Directory, ""),
    ("./word", EntryType::Regular, "first"),
    ("bin/run.sh", EntryType::Regular, "second"),
];

#[test]
fn archives_of_every_format_are_unpacked() {
    check_whole(
        &zip_of(&[("word", "first"), ("bin/run.sh", "second")]),
        ArchiveFormat::Zip,
    );
    let tar = tar_of(&WHOLE);
    check_whole(&tar, ArchiveFormat::Tar);
    check_whole(&gzipped(&tar), ArchiveFormat::TarGz);
    check_whole(&zst_of(&tar), ArchiveFormat::TarZst);
}

#[test]
fn links_are_made_last_and_lead_where_they_say() {
    let tar = tar_of(&[
        ("other", EntryType::Symlink, "word"),
        ("word", EntryType::Regular, "first"),
        ("deep/same", EntryType::Link, "word"),
    ]);
    let (directory, done) = unpacked(&tar, ArchiveFormat::Tar);
    done.unwrap();
    let to = directory.path().join("to");
    assert_eq!(fs::read_link(to.join("other")).unwrap(), Path::new("word"));
    assert_eq!(fs::read_to_string(to.join("deep/same")).unwrap(), "first");
}

#[test]
fn what_leads_out_of_the_archive_is_refused_and_nothing_is_there() {
    let check = |bytes: &[u8], format, names: &str| {
        let (directory, done) = unpacked(bytes, format);
        let error = done.unwrap_err();
        let said = format!("{error:?}");
        assert!(said.starts_with(names), "{said}");
        let outside = directory.path().join("evil");
        assert!(!outside.exists(), "{said}");
    };
    for name in ["../evil", "/evil", "a/../../evil"] {
        let tar = tar_of(&[(name, EntryType::Regular, "x")]);
        check(&tar, ArchiveFormat::Tar, "Outside");
        check(&zip_of(&[(name, "x")]), ArchiveFormat::Zip, "Outside");
    }
    // Through a link, in each order, and to another's file.
    let through = [
        ("out", EntryType::Symlink, ".."),
        ("out/evil", EntryType::Regular, "x"),
    ];
    check(&tar_of(&through), ArchiveFormat::Tar, "Twice");
    let after = [
        ("out/evil", EntryType::Regular, "x"),
        ("out", EntryType::Symlink, ".."),
    ];
    check(&tar_of(&after), ArchiveFormat::Tar, "Twice");
    let between = [
        ("out/evil", EntryType::Symlink, "x"),
        ("out", EntryType::Symlink, ".."),
    ];
    check(&tar_of(&between), ArchiveFormat::Tar, "Twice");
    let foreign = [("passwords", EntryType::Link, "../archive")];
    check(&tar_of(&foreign), ArchiveFormat::Tar, "Outside");
    let unknown = [("passwords", EntryType::Link, "nothing")];
    check(&tar_of(&unknown), ArchiveFormat::Tar, "Twice");
    check(
        &tar_of(&[("null", EntryType::Char, "")]),
        ArchiveFormat::Tar,
        "Kind",
    );
}

fn file<'a>(name: &'a str, content: &'a str) -> Made<'a> {
    (name, EntryType::Regular, content)
}

#[test]
fn what_has_too_much_is_given_up() {
    let halves = ["x".repeat(500), "x".repeat(501)];
    let fits = tar_of(&[file("a", &halves[0]), file("b", &halves[0])]);
    streamed(&fits[..], FEW).unwrap();
    let over = tar_of(&[file("a", &halves[0]), file("b", &halves[1])]);
    let error = streamed(&over[..], FEW).unwrap_err();
    assert!(
        matches!(error, UnpackError::Bytes { max: 1_000 }),
        "{error:?}"
    );

    let names: Vec<_> = (0..11).map(|number| number.to_string()).collect();
    let many: Vec<_> = names.iter().map(|name| file(name, "")).collect();
    streamed(&tar_of(&many[..10])[..], FEW).unwrap();
    let error = streamed(&tar_of(&many)[..], FEW).unwrap_err();
    assert!(
        matches!(error, UnpackError::Entries { max: 10 }),
        "{error:?}"
    );

    // Each directory on the way counts, also to links, which are made last.
    for kind in [EntryType::Regular, EntryType::Symlink] {
        let fits = [("1/2/3/4/5/6/7/8/9/10", kind, "x")];
        streamed(&tar_of(&fits)[..], FEW).unwrap();
        let deep = [("1/2/3/4/5/6/7/8/9/10/11", kind, "x")];
        let error = streamed(&tar_of(&deep)[..], FEW).unwrap_err();
        assert!(matches!(error, UnpackError::Entries { .. }), "{error:?}");
    }
}

#[test]
fn what_never_ends_is_given_up() {
    let endless = |kind, content: &str| {
        let mut bytes = tar_of(&[("x", kind, content)]);
        // Without the end.
        bytes.truncate(bytes.len() - 1024);
        Endless { bytes, at: 0 }
    };
    for (kind, content) in [
        (EntryType::XGlobalHeader, "11 a=bcdef\n"),
        (EntryType::XHeader, "11 a=bcdef\n"),
        (EntryType::GNULongName, "long"),
        (EntryType::Directory, ""),
        (EntryType::Regular, ""),
    ] {
        let done = streamed(endless(kind, content), FEW);
        assert!(done.is_err(), "{kind:?}");
    }
    // A name that is as long as all that may be read.
    let name = "x".repeat(200_000);
    let long = tar_of(&[("@LongLink", EntryType::GNULongName, &name)]);
    let error = streamed(&long[..], FEW).unwrap_err();
    assert!(
        matches!(error, UnpackError::Bytes { max: 100_000 }),
        "{error:?}"
    );
    // What comes behind the end.
    let whole = tar_of(&[("a", EntryType::Regular, "")]);
    let rest = Endless {
        bytes: vec![0],
        at: 0,
    };
    let error = streamed(whole.chain(rest), FEW).unwrap_err();
    assert!(matches!(error, UnpackError::Bytes { .. }), "{error:?}");
}

#[test]
fn a_stream_that_says_that_it_is_damaged_is_not_taken() {
    let mut packed = gzipped(&tar_of(&WHOLE));
    // The checksum is in front of the last four bytes.
    let at = packed.len() - 8;
    packed[at] ^= 1;
    let (_, done) = unpacked(&packed, ArchiveFormat::TarGz);
    assert!(matches!(done, Err(UnpackError::Read { .. })), "{done:?}");
}

#[test]
fn links_of_a_zip_are_links_and_long_names_of_a_tar_are_whole() {
    let mut writer = ZipWriter::new(io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    writer.add_symlink("there", "word", options).unwrap();
    let zip = writer.finish().unwrap().into_inner();
    let (directory, done) = unpacked(&zip, ArchiveFormat::Zip);
    done.unwrap();
    let link = fs::read_link(directory.path().join("to/there")).unwrap();
    assert_eq!(link, Path::new("word"));

    let name = format!("{}/{}", "a".repeat(150), "b".repeat(150));
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, &name, "first".as_bytes())
        .unwrap();
    let (directory, done) = unpacked(&builder.into_inner().unwrap(), ArchiveFormat::Tar);
    done.unwrap();
    let found = fs::read_to_string(directory.path().join("to").join(name));
    assert_eq!(found.unwrap(), "first");
    let too_long = format!("{}/x", "a".repeat(256));
    let zip = zip_of(&[(&too_long, "x")]);
    let (_, done) = unpacked(&zip, ArchiveFormat::Zip);
    assert!(matches!(done, Err(UnpackError::Name { .. })), "{done:?}");
}

#[test]
fn what_is_no_archive_or_cut_off_is_said_to_be_unreadable() {
    for format in [
        ArchiveFormat::Zip,
        ArchiveFormat::Tar,
        ArchiveFormat::TarGz,
        ArchiveFormat::TarZst,
    ] {
        let (_, done) = unpacked(&[b'x'; 2000], format);
        assert!(
            matches!(done, Err(UnpackError::Read { .. })),
            "{format:?} {done:?}"
        );
    }
    let tar = tar_of(&[("word", EntryType::Regular, &"first".repeat(1000))]);
    let (_, done) = unpacked(&tar[..1500], ArchiveFormat::Tar);
    assert!(matches!(done, Err(UnpackError::Read { .. })), "{done:?}");
}
