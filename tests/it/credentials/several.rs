//! Several repositories: each has its own credential, and what one leads to has none.

use super::*;

/// A repository `b.git` beside the others, with a file `word`.
fn add_second(directory: &Path) {
    let bare = ["clone", "--quiet", "--bare", "a.git", "b.git"];
    git(directory, &bare);
    git(&directory.join("b.git"), &["update-server-info"]);
}

/// A git that checks no certificate, in front of the system's.
fn trusting_git(directory: &Path) -> String {
    let bin = directory.join("bin");
    fs::create_dir(&bin).unwrap();
    let script = format!("#!/bin/sh\nexport GIT_SSL_NO_VERIFY=1 PATH={SYSTEM}\nexec git \"$@\"\n");
    stand_in(&bin, "git", &script);
    format!("[worker]\npath = '{}:{SYSTEM}'\n", bin.display())
}

#[test]
fn a_submodule_is_not_let_in_by_the_credential_of_the_repository_that_has_it() {
    if !can() {
        return;
    }
    let repositories = repositories();
    add_second(repositories.path());
    let server = Server::start(repositories.path(), LOGIN, "");
    let other = Server::start(repositories.path(), LOGIN, "");
    let settings = trusting_git(repositories.path());
    let farm = farm_with(LOGIN, &settings);
    make(&farm, &server.url("a.git"), &["--submodules", "yes"]);
    for (number, at) in [&server, &other].into_iter().enumerate() {
        let work = repositories.path().join("work");
        let bare = repositories.path().join("a.git");
        let url = at.url("b.git");
        let text = format!("[submodule \"b\"]\n\tpath = b\n\turl = {url}\n");
        fs::write(work.join(".gitmodules"), text).unwrap();
        let head = Command::new("git")
            .args(["rev-parse", "HEAD"])
            .current_dir(&bare)
            .output()
            .unwrap();
        let head = String::from_utf8(head.stdout).unwrap();
        let link = format!("160000,{},b", head.trim());
        git(&work, &["update-index", "--add", "--cacheinfo", &link]);
        git(&work, &["add", ".gitmodules"]);
        git(&work, &["commit", "--quiet", "-m", "submodule"]);
        git(&work, &["push", "--quiet", "../a.git", "HEAD:main"]);
        git(&bare, &["update-server-info"]);
        assert_eq!(build(&farm).code, 1, "nobody lets it in");
        let said = message(&farm, &format!("shop#{}", number + 1));
        assert!(said.contains("b.git"), "{said}");
        let asked = |server: &Server, name: &str| -> Vec<String> {
            let notes = server.notes().into_iter();
            let of = notes.filter(|(path, _)| path.contains(name));
            of.map(|(_, given)| given).collect()
        };
        assert!(asked(&server, "a.git").iter().any(|given| given != "-"));
        let given = asked(at, "b.git");
        assert!(!given.is_empty(), "git went there");
        assert!(given.iter().all(|given| given == "-"), "{given:?}");
    }
}

#[test]
fn each_source_has_its_own_credential_and_its_own_trust_in_certificates() {
    const OTHER: &str = "eve:battery-staple";
    if !can() {
        return;
    }
    let repositories = repositories();
    add_second(repositories.path());
    let server = Server::start(repositories.path(), LOGIN, "");
    let other = Server::start(repositories.path(), OTHER, "");
    let farm = farm_with(LOGIN, "");
    assert_eq!(set(&farm, &["gitlab"], OTHER).code, 0);
    make(&farm, &server.url("a.git"), &["--insecure-ssl", "yes"]);
    let lib = format!("lib={}", other.url("b.git"));
    let with_lib = [
        "project",
        "update",
        "shop",
        "--secondary",
        &lib,
        "--secondary-credential",
        "lib=gitlab",
    ];
    done(&farm, &with_lib);
    assert_eq!(build(&farm).code, 1);
    let said = message(&farm, "shop#1");
    assert!(said.contains("certificate"), "{said}");
    let trusts = ["--secondary-insecure-ssl", "lib=yes"];
    let text = "version: 0.2\nphases:\n  build:\n    commands:\n      - cat $CODEBUILD_SRC_DIR/word $CODEBUILD_SRC_DIR_lib/word\n";
    done(
        &farm,
        &[
            &["project", "update", "shop", "--buildspec", text][..],
            &trusts,
        ]
        .concat(),
    );
    let built = build(&farm);
    assert_eq!(built.printed(), ["first", "first"], "{}", built.stdout);
    // The right one at the wrong place lets nobody in.
    let swapped = ["--secondary-credential", "lib=github"];
    done(
        &farm,
        &[&["project", "update", "shop"][..], &swapped].concat(),
    );
    assert_eq!(build(&farm).code, 1);
    let said = message(&farm, "shop#3");
    assert!(said.contains("b.git"), "{said}");
}
