//! Sources that are archives.

use std::os::unix::fs::symlink;

use super::*;

/// Packs the tree of a repository with `program`; gives where the archive is.
fn archive(repository: &tempfile::TempDir, name: &str) -> std::path::PathBuf {
    let path = repository.path();
    let to = path.join(name);
    let output = format!("--output={}", to.display());
    git(path, &["archive", &output, "HEAD"]);
    to
}

fn sha256(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().to_owned()
}

/// A farm whose workers may fetch archives from this machine's disk; `None`: nothing can.
fn farm_of_archives() -> Option<Farm> {
    if Command::new("curl").arg("--version").output().is_err() {
        testkit::cannot("there is no curl here");
        return None;
    }
    Some(Farm::start(FarmPlan {
        settings: "[worker]\narchive_protocols = ['file']\n".to_owned(),
        ..FarmPlan::default()
    }))
}

#[test]
fn an_archive_is_a_source_and_only_the_one_with_the_digest_is_built() {
    let Some(farm) = farm_of_archives() else {
        return;
    };
    let (repository, _) = repository(&["first"]);
    let text = "version: 0.2\nphases:\n  build:\n    commands:\n      - cat word\n      - echo \
        ${CODEBUILD_RESOLVED_SOURCE_VERSION-none} ${CODEBUILD_SOURCE_VERSION-none}\n";
    project::write_buildspec(repository.path(), text);
    git(
        repository.path(),
        &["commit", "--quiet", "-am", "buildspec"],
    );
    let mut sums = Vec::new();
    for name in ["a.zip", "a.tar", "a.tar.gz"] {
        let file = archive(&repository, name);
        sums.push(sha256(&file));
        let url = format!("file://{}", file.display());
        let verb = if name == "a.zip" { "create" } else { "update" };
        done(&farm, &["project", verb, "shop", "--source-archive", &url]);
        let built = build(&farm, &[]);
        assert_eq!(built.printed(), ["first", "none none"], "{}", built.stdout);
        let said = format!("Fetched archive with SHA-256 {}", sums.last().unwrap());
        assert!(built.stdout.contains(&said), "{}", built.stdout);
    }
    let right = build(&farm, &["--source-version", &sums[2]]);
    assert_eq!(right.printed()[1], format!("none {}", sums[2]));
    assert_eq!(build(&farm, &["--source-version", &sums[1]]).code, 1);
    let (code, message) = context(&farm, "shop#5");
    assert_eq!(code, "CLIENT_ERROR");
    let why = format!("its SHA-256 is {}, and not {}", sums[2], sums[1]);
    assert!(message.ends_with(&why), "{message}");
}

#[test]
fn an_archive_that_is_not_there_or_none_or_not_to_be_read_fails_download_source() {
    let Some(farm) = farm_of_archives() else {
        return;
    };
    let (repository, _) = repository(&["first"]);
    let broken = repository.path().join("broken.zip");
    std::fs::write(&broken, "no archive").unwrap();
    std::fs::write(repository.path().join("huge.tar.zst"), huge()).unwrap();
    let of_file = |name: &str| format!("file://{}/{name}", repository.path().display());
    for (number, url, verb, why) in [
        (1, of_file("none.zip"), "create", "curl: "),
        (2, of_file("broken.zip"), "update", "archive cannot be read"),
        (3, of_file("huge.tar.zst"), "update", "too much memory"),
        (
            4,
            "https://127.0.0.1/a.zip".to_owned(),
            "update",
            "does not let it fetch over `https`",
        ),
    ] {
        done(&farm, &["project", verb, "shop", "--source-archive", &url]);
        assert_eq!(build(&farm, &[]).code, 1, "{url}");
        let (code, message) = context(&farm, &format!("shop#{number}"));
        assert_eq!(code, "CLIENT_ERROR");
        assert!(message.starts_with("Download failed: "), "{message}");
        assert!(message.contains(why), "{message}");
    }
}

/// A few bytes of a tar in a frame of zstd (RFC 8878, 3.1.1) whose first name has three gigabytes.
fn huge() -> Vec<u8> {
    const BLOCK_BYTES: usize = 128 * 1024;
    let name_bytes = 3_usize << 30;
    let mut header = [0; 512];
    header[..13].copy_from_slice(b"././@LongLink");
    header[124..136].copy_from_slice(format!("{name_bytes:011o}\0").as_bytes());
    header[148..156].fill(b' ');
    header[156] = b'L';
    header[257..265].copy_from_slice(b"ustar  \0");
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50];
    // A block as it is, then blocks of one byte that comes again and again.
    frame.extend_from_slice(&(512_u32 << 3).to_le_bytes()[..3]);
    frame.extend_from_slice(&header);
    let repeated = u32::try_from(BLOCK_BYTES << 3 | 1 << 1)
        .unwrap()
        .to_le_bytes();
    for _ in 0..name_bytes / BLOCK_BYTES {
        frame.extend_from_slice(&repeated[..3]);
        frame.push(b'x');
    }
    frame.extend_from_slice(&[1, 0, 0]);
    frame
}

#[test]
fn a_machine_without_curl_is_the_farms_fault() {
    let bin = tempfile::tempdir_in("/opt").unwrap();
    for directory in ["/usr/bin", "/bin"] {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "curl" {
                // The two may be one directory.
                let _is_there = symlink(entry.path(), bin.path().join(entry.file_name()));
            }
        }
    }
    let path = bin.path().display();
    let farm = Farm::start(FarmPlan {
        settings: format!("[worker]\npath = '{path}'\narchive_protocols = ['file']\n"),
        ..FarmPlan::default()
    });
    let url = "file:///nowhere/a.zip";
    done(
        &farm,
        &["project", "create", "shop", "--source-archive", url],
    );
    let built = build(&farm, &[]);
    assert_eq!(built.code, 3, "{}\n{}", built.stdout, built.stderr);
    let status = farm.status("shop#1");
    let message = &status["units"][0]["phases"][0]["context"]["message"];
    let message = message.as_str().unwrap();
    assert!(message.contains("curl ended with status 127"), "{message}");
}
