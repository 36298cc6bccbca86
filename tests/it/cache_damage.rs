//! Bits flip in the cache's files: builds that need what was in them succeed, what is lost is brought or made
//! again, and the cache takes what comes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use testkit::{
    farm::{Farm, FarmPlan},
    project,
    random::Random,
    wait,
};

/// Keeps a few megabytes that cannot be compressed.
const KEEPS: &str = "
version: 0.2
phases:
  build:
    commands:
      - test -e deps/file && echo kept || echo nothing
      - mkdir -p deps; test -e deps/file || head -c 3000000 /dev/urandom > deps/file
cache:
  key: deps
  paths: ['deps/**/*']
";

/// The files of the cache's database that end so.
fn files(farm: &Farm, ending: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(farm.cache_directory().join("store")).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == ending));
    files.sort();
    files
}

/// Flips a bit in each part of `part` bytes, one part at least; not in the first and the last of the file,
/// which are read when the store is opened.
fn flip(path: &Path, part: usize) {
    let mut content = fs::read(path).unwrap();
    let ends = 2_000.min(content.len() / 4);
    let inner = ends..content.len() - ends;
    let places = inner.clone().skip(part / 2).step_by(part);
    let mut places: Vec<usize> = places.collect();
    if places.is_empty() {
        places.push(content.len() / 2);
    }
    for place in places {
        content[place] ^= 4;
    }
    fs::write(path, content).unwrap();
}

/// Has all that the cache has written to its files: what is in its log is read at the next start.
fn restart_cache(farm: &mut Farm) {
    farm.kill_cache();
    start_cache(farm, &[]);
}

/// Starts the cache, and waits until everybody knows where it is.
fn start_cache(farm: &mut Farm, arguments: &[&str]) {
    farm.start_cache_with(arguments);
    wait::until_true("the cache is known", || {
        let stats = farm.client(&["cache", "stats"]).output().unwrap();
        stats.status.success()
    });
}

/// Has the worker forget all that it has unpacked.
fn forget_layers(farm: &mut Farm) {
    farm.kill_worker(0);
    fs::remove_dir_all(farm.worker_directory(0).join("layers")).unwrap();
    farm.start_worker(0);
}

fn noise(length: u64) -> Vec<u8> {
    let mut random = Random::new(length);
    let words = (0..length / 8).map(|_| random.below(u64::MAX).to_le_bytes());
    words.flatten().collect()
}

/// A source with a file that is a chunk of its own.
fn source() -> tempfile::TempDir {
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(source.path(), KEEPS);
    fs::write(source.path().join("large"), noise(400_000)).unwrap();
    source
}

#[track_caller]
fn build(farm: &Farm, source: &Path) -> String {
    let built = farm.build(source, &["--project", "sample"]);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    built.printed()[0].to_owned()
}

/// How often something is counted in the cache's log.
fn logged(farm: &Farm, text: &str) -> usize {
    let log = fs::read(farm.directory().join("cache.log")).unwrap();
    String::from_utf8_lossy(&log).matches(text).count()
}

#[test]
fn a_build_succeeds_whose_dependency_cache_is_damaged_in_the_blob_files() {
    let mut farm = Farm::start(FarmPlan::default());
    let source = source();
    assert_eq!(build(&farm, source.path()), "nothing");
    restart_cache(&mut farm);
    farm.kill_cache();
    for path in files(&farm, "blob") {
        flip(&path, 300_000);
    }
    start_cache(&mut farm, &[]);
    forget_layers(&mut farm);
    // Its own source is damaged as well; this command has it.
    assert_eq!(build(&farm, source.path()), "nothing");
    assert!(0 < logged(&farm, "is damaged and is set aside"));
    forget_layers(&mut farm);
    assert_eq!(build(&farm, source.path()), "kept", "it was brought back");
}

#[test]
fn builds_succeed_on_a_store_whose_tables_are_damaged() {
    let mut farm = Farm::start(FarmPlan::default());
    let source = source();
    assert_eq!(build(&farm, source.path()), "nothing");
    restart_cache(&mut farm);
    farm.kill_cache();
    let count = files(&farm, "sst").len();
    assert!(0 < count);
    let mut met = 0;
    for at in 0..count {
        // Tables come and go with each start.
        let tables = files(&farm, "sst");
        let table = &tables[at % tables.len()];
        let whole = fs::read(table).unwrap();
        // The first block: it has rows in every table, and the ends of the file are met at the start.
        let mut content = whole.clone();
        content[20] ^= 4;
        fs::write(table, content).unwrap();
        start_cache(&mut farm, &[]);
        forget_layers(&mut farm);
        // One that was told that its source is there, and was not believed a moment later, is told so.
        wait::until_true("it is taken", || {
            farm.build(source.path(), &["--project", "sample"]).code == 0
        });
        forget_layers(&mut farm);
        assert_eq!(build(&farm, source.path()), "kept", "{}", table.display());
        met += usize::from(0 < logged(&farm, "was made anew"));
        farm.kill_cache();
        if table.exists() {
            // What it was is as good as what it is.
            fs::write(table, whole).unwrap();
        }
    }
    assert!(0 < met, "nobody noticed");
}

#[test]
fn a_damaged_log_stops_the_start_with_a_hint_and_is_salvaged() {
    let mut farm = Farm::start(FarmPlan::default());
    let source = source();
    assert_eq!(build(&farm, source.path()), "nothing");
    farm.kill_cache();
    for path in files(&farm, "log") {
        flip(&path, 600_000);
    }
    let data = farm.cache_directory();
    let arguments = [
        "cache",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--join",
        &farm.address,
    ];
    let mut start = farm.grange(&arguments);
    let refused = start.arg("--data").arg(&data).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    for part in ["--salvage", data.to_str().unwrap()] {
        assert!(said.contains(part), "{said}");
    }
    start_cache(&mut farm, &["--salvage"]);
    forget_layers(&mut farm);
    build(&farm, source.path());
    restart_cache(&mut farm);
    forget_layers(&mut farm);
    assert_eq!(build(&farm, source.path()), "kept");
}

#[test]
fn a_directory_that_was_put_is_found_damaged_and_put_again() {
    let mut farm = Farm::start(FarmPlan::default());
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("large"), noise(2_000_000)).unwrap();
    let path = directory.path().to_str().unwrap();
    let run = |farm: &Farm, arguments: &[&str]| {
        let output = farm
            .client(&[&["cache"], arguments].concat())
            .output()
            .unwrap();
        output.status.code().unwrap()
    };
    assert_eq!(run(&farm, &["put", path, "--key", "it"]), 0);
    restart_cache(&mut farm);
    farm.kill_cache();
    for path in files(&farm, "blob") {
        flip(&path, 2_000_000);
    }
    start_cache(&mut farm, &[]);
    assert_eq!(run(&farm, &["verify", "it"]), 3);
    wait::until_true("it is put again whole", || {
        run(&farm, &["put", path, "--key", "it"]) == 0 && run(&farm, &["verify", "it"]) == 0
    });
}
