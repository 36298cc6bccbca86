//! The cold tier: a bucket behind the cache, on a real S3-compatible server.

use std::{fs, net::TcpListener, path::Path, time::Duration};

use testkit::{
    bucket::Bucket,
    farm::{Built, Farm, FarmPlan},
    project, wait,
};

/// How the names of what the cache keeps start.
const ENTRIES: &str = "grange/entries/main/dependency/";
const CHUNKS: &str = "grange/chunks/";

fn farm(bucket: &Bucket) -> Farm {
    Farm::start(FarmPlan {
        settings: format!("[cache]\n{}", bucket.settings()),
        cache_environment: Bucket::environment(),
        ..FarmPlan::default()
    })
}

/// A source whose builds keep what they found, and say what that was.
fn source() -> tempfile::TempDir {
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  build:
    commands:
      - cat deps/file 2>/dev/null || echo nothing
      - test -e deps/large || head -c 3000000 /dev/urandom > deps-large
      - mkdir -p deps; echo kept > deps/file; test -e deps/large || mv deps-large deps/large
      - sha256sum < deps/large
cache:
  key: ${KEY:-linux-one}
  fallback-keys: ['linux-']
  paths: ['deps/**/*']
",
    );
    source
}

fn build(farm: &Farm, source: &Path, more: &[&str]) -> Built {
    let arguments = [&["--project", "sample"], more].concat();
    let built = farm.build(source, &arguments);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    built
}

fn run(farm: &Farm, arguments: &[&str]) {
    let output = farm.client(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
}

/// Ends the cache, takes its store away, and starts it again.
fn lose_store(farm: &mut Farm) {
    farm.kill_cache();
    fs::remove_dir_all(farm.cache_store()).unwrap();
    farm.start_cache();
    // The coordinator hears of its new address a moment later.
    wait::until_true("clients find the cache", || {
        let stats = farm.client(&["cache", "stats"]).output();
        stats.unwrap().status.success()
    });
}

fn wait_for_entries(bucket: &Bucket, count: usize) {
    wait::until_true("the bucket has the entries", || {
        bucket.objects(ENTRIES).len() == count
    });
}

#[test]
fn a_cache_that_lost_its_disk_has_what_is_in_the_bucket() {
    let bucket = Bucket::start();
    let mut farm = farm(&bucket);
    let source = source();
    let first = build(&farm, source.path(), &[]);
    assert_eq!(first.printed()[0], "nothing");
    wait_for_entries(&bucket, 1);
    assert!(2 < bucket.objects(CHUNKS).len(), "chunks came before it");
    lose_store(&mut farm);
    let second = build(&farm, source.path(), &[]);
    assert_eq!(second.printed()[0], "kept", "{}", second.stdout);
    assert_eq!(second.printed()[1], first.printed()[1], "the same bytes");
    lose_store(&mut farm);
    let other_key = build(&farm, source.path(), &["--env", "KEY=linux-two"]);
    assert_eq!(
        other_key.printed()[0],
        "kept",
        "a fallback key finds it: {}",
        other_key.stdout
    );
    assert_eq!(other_key.printed()[1], first.printed()[1]);
}

#[test]
fn builds_go_on_without_the_bucket_and_it_has_later_what_was_kept_meanwhile() {
    let mut bucket = Bucket::start();
    let mut farm = farm(&bucket);
    let source = source();
    bucket.stop_server();
    let without = [
        build(&farm, source.path(), &[]),
        build(&farm, source.path(), &[]),
    ];
    assert_eq!(without[0].printed()[0], "nothing");
    assert_eq!(without[1].printed()[0], "kept", "the store has it");
    assert!(bucket.objects(ENTRIES).is_empty());
    bucket.start_server();
    farm.kill_cache();
    farm.start_cache();
    wait_for_entries(&bucket, 1);
}

#[test]
fn a_server_that_never_answers_holds_up_a_build_for_seconds_only() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let farm = Farm::start(FarmPlan {
        settings: format!(
            "[cache]\ncold_bucket = \"grange\"\ncold_endpoint = \"http://{address}\"\n"
        ),
        cache_environment: Bucket::environment(),
        ..FarmPlan::default()
    });
    let source = source();
    let start = wait::now();
    let first = build(&farm, source.path(), &[]);
    // A look that waited for the library's own tries would take that by itself.
    assert!(start.elapsed() < Duration::from_secs(30));
    assert_eq!(first.printed()[0], "nothing");
    let second = build(&farm, source.path(), &[]);
    assert_eq!(second.printed()[0], "kept");
}

#[test]
fn a_server_that_comes_back_gets_what_was_kept_meanwhile_without_anybody_asking() {
    if !testkit::slow_tests() {
        return testkit::skip("the pause after a failure takes minutes");
    }
    let mut bucket = Bucket::start();
    let farm = farm(&bucket);
    bucket.stop_server();
    build(&farm, source().path(), &[]);
    wait::until_true("the cache has given up writing", || {
        let log = fs::read_to_string(farm.directory().join("cache.log")).unwrap();
        log.lines()
            .any(|line| line.contains("the cold tier failed") && line.contains("write an entry"))
    });
    bucket.start_server();
    wait_for_entries(&bucket, 1);
}

#[test]
fn what_is_damaged_in_the_bucket_is_noticed_and_written_anew() {
    let bucket = Bucket::start();
    let mut farm = farm(&bucket);
    let source = source();
    build(&farm, source.path(), &[]);
    wait_for_entries(&bucket, 1);
    let large = |bucket: &Bucket| {
        let chunks = bucket.objects(CHUNKS).into_iter();
        let sized = chunks.map(|(_, path)| (fs::metadata(&path).unwrap().len(), path));
        sized.max().unwrap().1
    };
    let damaged = large(&bucket);
    let mut bytes = fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    lose_store(&mut farm);
    let missed = build(&farm, source.path(), &[]);
    assert_eq!(missed.printed()[0], "nothing", "what is damaged is none");
    wait_for_entries(&bucket, 1);
    lose_store(&mut farm);
    let found = build(&farm, source.path(), &[]);
    assert_eq!(found.printed(), ["kept", missed.printed()[1]]);
}

#[test]
fn what_was_put_by_hand_is_listed_and_got_from_the_bucket_and_goes_from_there_too() {
    let bucket = Bucket::start();
    let mut farm = farm(&bucket);
    let directory = tempfile::tempdir().unwrap();
    let put = directory.path().join("put");
    fs::create_dir(&put).unwrap();
    fs::write(put.join("file"), "bytes").unwrap();
    run(
        &farm,
        &["cache", "put", put.to_str().unwrap(), "--key", "tools"],
    );
    let saved = |bucket: &Bucket| bucket.objects("grange/entries/main/saved/").len();
    wait::until_true("the bucket has both names", || saved(&bucket) == 2);
    lose_store(&mut farm);
    assert_eq!(farm.json(&["cache", "ls"]).len(), 2);
    let got = directory.path().join("got");
    run(&farm, &["cache", "get", "tools", got.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(got.join("file")).unwrap(), "bytes");
    run(&farm, &["cache", "gc", "--unused", "0s"]);
    assert_eq!(saved(&bucket), 0);
    lose_store(&mut farm);
    assert!(farm.json(&["cache", "ls"]).is_empty());
}

#[test]
fn what_a_cache_has_stays_young_in_the_bucket_and_what_none_has_goes_when_it_is_old() {
    let bucket = Bucket::start();
    let mut farm = farm(&bucket);
    let source = source();
    build(&farm, source.path(), &[]);
    wait_for_entries(&bucket, 1);
    let days = |days: u32| days * Duration::from_secs(24 * 3600);
    let age = |by: Duration| {
        for (_, path) in bucket.objects("") {
            let file = fs::File::options().write(true).open(path).unwrap();
            let written = file.metadata().unwrap().modified().unwrap();
            file.set_modified(written - by).unwrap();
        }
    };
    let is_young = |path: &Path| {
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|modified| modified.elapsed().unwrap_or_default() < days(1))
    };
    farm.kill_cache();
    age(days(20));
    farm.start_cache();
    wait::until_true("all that is needed is young", || {
        let objects = bucket.objects("");
        !objects.is_empty() && objects.iter().all(|(_, path)| is_young(path))
    });
    farm.kill_cache();
    fs::remove_dir_all(farm.cache_store()).unwrap();
    age(days(100));
    farm.start_cache();
    wait::until_true("what is old goes", || bucket.objects("").is_empty());
}
