//! What a build restores and saves, asked for or not.

use protocol::cache_spec::UnaskedCache;

use super::*;

#[test]
fn a_file_without_a_cache_lets_lock_files_choose_and_no_cache_is_none() {
    let unasked = |text: &BuildSpec, no_cache| {
        let request = PlanRequest {
            no_cache,
            ..PlanRequest::default()
        };
        let graph = plan(text, &request).unwrap();
        let (
            Task::DownloadSource { cache, unasked, .. },
            Task::Commands(build),
            Task::Commands(post),
        ) = (
            &graph.jobs[0].task,
            &graph.jobs[3].task,
            &graph.jobs[4].task,
        )
        else {
            panic!("these are the first, and two that run commands");
        };
        assert_eq!((build.save_unasked, &build.save_cache), (None, &None));
        assert_eq!((post.save_unasked, &post.save_cache), (*unasked, cache));
        (cache.is_some(), *unasked)
    };
    let without = file("", "");
    let chosen = |npm_ci| (false, Some(UnaskedCache { npm_ci }));
    assert_eq!(unasked(&without, false), chosen(false));
    assert_eq!(unasked(&without, true), (false, None));
    let asks = file("", "cache: {paths: [c]}\n");
    assert_eq!(unasked(&asks, false), (true, None));
    assert_eq!(unasked(&asks, true), (false, None));
    let npm = parse("version: 0.2\nphases: {install: {commands: [npm ci]}}\n");
    assert_eq!(unasked(&npm.spec.unwrap(), false), chosen(true));
}

#[test]
fn a_cache_of_one_direction_is_only_restored_or_only_saved() {
    let both = |action: &str| {
        let cache = format!("cache:\n  paths: [c]\n  action: {action}\n");
        let graph = plan(&file("", &cache), &PlanRequest::default()).unwrap();
        let restores = matches!(
            &graph.jobs[0].task,
            Task::DownloadSource { cache: Some(_), .. }
        );
        let saves =
            matches!(&graph.jobs[4].task, Task::Commands(post) if post.save_cache.is_some());
        (restores, saves)
    };
    assert_eq!(both("restore"), (true, false));
    assert_eq!(both("save"), (false, true));
    assert_eq!(both(""), (true, true));
}
