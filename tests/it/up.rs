//! Farms in one process: `grange up`, and the embedded farm of a single command.

use std::{
    fs::{self, Permissions},
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
};

use testkit::{farm::Built, program::grange, project, wait};

use crate::{
    home::{Home, interrupt},
    levels::has_namespaces,
};

const QUICK: &str = "
version: 0.2
phases: {build: {commands: [echo it builds]}}
";

#[test]
fn a_build_cannot_read_the_farms_authority_or_the_users_identities() {
    if !has_namespaces() {
        return;
    }
    // Builds have a `/tmp` of their own: what is there proves nothing.
    let outside = tempfile::tempdir_in("/opt").unwrap();
    let mut home = Home::new();
    home.data = outside.path().join("data");
    let farm = outside.path().join("farm");
    let config = home.directory.path().join("grange.toml");
    let settings = format!(
        "[coordinator]\ndirectory = '{}'\n[worker]\ndirectory = '{}'\n",
        farm.display(),
        home.directory.path().display(),
    );
    fs::write(&config, settings).unwrap();
    let config = config.to_str().unwrap();
    let up = home.up(&["--listen", "127.0.0.1:0", "--config", config]);
    let authority = farm.join("coordinator/authority/authority.pem");
    let identities = home.data.join("grange/identities");
    assert!(authority.exists() && identities.exists());
    fs::write(
        outside.path().join("beside"),
        "what lies beside them is seen\n",
    )
    .unwrap();
    fs::set_permissions(outside.path(), Permissions::from_mode(0o755)).unwrap();
    let list = format!(
        "
version: 0.2
phases:
  build:
    commands:
      - cat {authority} && echo the authority is seen || true
      - ls {identities} && echo identities are seen || true
      - cat {outside}/beside
      - find {outside} -name '*.pem' | sed 's/^/found /' || true
",
        outside = outside.path().display(),
        authority = authority.display(),
        identities = identities.display(),
    );
    project::write_buildspec(&home.source(), &list);
    let built = home.run(&["build", "--farm", up.address(), "--project", "sample"]);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    let printed = built.stdout.lines();
    let printed: Vec<_> = printed
        .filter(|line| !line.starts_with("[Container] ") && !line.starts_with("cat: "))
        .filter(|line| !line.starts_with("ls: "))
        .collect();
    assert_eq!(printed, ["what lies beside them is seen"]);
}

#[test]
fn a_farm_listens_on_all_addresses_and_names_one_that_can_be_reached() {
    let home = Home::new();
    project::write_buildspec(&home.source(), QUICK);
    let up = home.up(&["--listen", "0.0.0.0:0"]);
    assert!(!up.address().starts_with("0.0.0.0"), "{}", up.said);
    let built = home.run(&["build", "--farm", up.address(), "--project", "sample"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    let (code, errors) = up.end();
    assert_eq!(code, Some(0), "{errors}");

    let up = home.up(&["--listen", "0.0.0.0:0", "--advertise", "192.0.2.7:7420"]);
    assert!(
        up.said.contains("--join 192.0.2.7:7420 --token"),
        "{}",
        up.said
    );
}

#[test]
fn a_drained_worker_leaves_and_the_farm_stays() {
    let home = Home::new();
    let up = home.up(&["--listen", "127.0.0.1:0", "--workers", "2"]);
    let names = || -> Vec<String> {
        let listed = home.run(&["workers", "--farm", up.address(), "--json"]);
        let lines = listed.stdout.lines();
        let workers = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        workers
            .map(|worker| worker["offer"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    wait::until_true("both workers are there", || names().len() == 2);
    for left in [1, 0] {
        let drained = home.run(&["drain", &names()[0], "--farm", up.address()]);
        assert_eq!(drained.code, 0, "{}", drained.stderr);
        wait::until_true("the worker is gone", || names().len() == left);
    }
    let (code, errors) = up.end();
    assert_eq!(code, Some(0), "{errors}");
}

#[test]
fn a_farm_that_is_ended_says_nothing_of_what_it_loses_on_the_way() {
    let home = Home::new();
    project::write_buildspec(&home.source(), QUICK);
    let up = home.up(&["--listen", "127.0.0.1:0", "--workers", "2"]);
    let built = home.run(&["build", "--farm", up.address(), "--project", "sample"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    let (code, errors) = up.end();
    assert_eq!(code, Some(0));
    let said: Vec<_> = errors
        .lines()
        .filter(|line| !line.contains("isolation level"))
        .collect();
    assert_eq!(said, ["ending what runs; once more to leave at once"]);
}

#[test]
fn a_farm_that_cannot_come_up_fails_and_does_not_abort() {
    let home = Home::new();
    let busy = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = busy.local_addr().unwrap().to_string();
    fs::write(
        home.source().join("grange.toml"),
        format!("[coordinator]\nlisten = '127.0.0.1:0'\n[cache]\nlisten = '{taken}'\n"),
    )
    .unwrap();
    for _ in 0..3 {
        let up = home.run(&["up"]);
        assert_eq!(up.code, 3, "{}", up.stderr);
        assert!(up.stderr.contains(&taken), "{}", up.stderr);
    }
}

#[test]
fn settings_of_up_say_where_its_parts_keep_their_data() {
    let home = Home::new();
    project::write_buildspec(&home.source(), QUICK);
    let place = |name: &str| home.directory.path().join(name);
    let settings = format!(
        "[coordinator]\ndirectory = '{}'\n[cache]\ndirectory = '{}'\n[worker]\ndirectory = '{}'\nname = 'mole'\n",
        place("c").display(),
        place("k").display(),
        place("w").display(),
    );
    fs::write(place("grange.toml"), &settings).unwrap();
    let config = place("grange.toml");
    let up = home.up(&[
        "--listen",
        "127.0.0.1:0",
        "--config",
        config.to_str().unwrap(),
    ]);
    wait::until_true("the worker is there", || {
        let workers = home.run(&["workers", "--farm", up.address()]);
        workers.stdout.contains("mole-1")
    });
    assert!(place("c/coordinator/journal").exists());
    assert!(place("k/store").exists());
    assert!(place("w/worker-1/layers").exists());
    assert!(!home.farm().exists());
}

#[test]
fn every_command_that_fails_on_an_embedded_farm_ends_it_in_order() {
    let home = Home::new();
    project::write_buildspec(&home.source(), QUICK);
    for (arguments, expected) in [
        (&["status", "nothing"][..], 2),
        (&["logs", "nothing"], 2),
        (&["retry", "nothing"], 2),
        (&["build", "--detach", "--project", "sample"], 2),
        (&["artifacts", "nothing"], 2),
        (&["drain", "nobody"], 2),
    ] {
        let failed = home.run(arguments);
        assert_eq!(failed.code, expected, "{arguments:?}: {}", failed.stderr);
        assert!(failed.stderr.starts_with("error: "), "{}", failed.stderr);
    }
}

#[test]
fn a_build_is_not_left_alone_on_a_farm_that_ends() {
    let home = Home::new();
    project::write_buildspec(&home.source(), QUICK);
    let built = home.run(&["build", "--project", "sample"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    let retried = home.run(&["retry", "sample#1", "--detach"]);
    assert_eq!(retried.code, 2, "{}", retried.stderr);
    assert!(retried.stderr.contains("grange up"), "{}", retried.stderr);
    let listed = home.run(&["builds", "--json"]);
    assert_eq!(listed.stdout.lines().count(), 1, "{}", listed.stdout);
}

#[test]
fn a_service_setting_that_is_taken_does_not_hinder_a_command() {
    let home = Home::new();
    project::write_buildspec(&home.source(), QUICK);
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap();
    let config = home.directory.path().join("grange.toml");
    let text = format!(
        "[coordinator]\nmetrics_listen = '{address}'\n[cache]\nmetrics_listen = '{address}'\n"
    );
    fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let built = home.run(&["build", "--project", "sample", "--config", config]);
    assert_eq!(built.code, 0, "{}", built.stderr);
}

#[test]
fn a_source_tree_does_not_say_how_its_builds_are_isolated() {
    let home = Home::new();
    let buildspec = "
version: 0.2
phases: {build: {commands: ['echo secret is $SECRET.']}}
";
    project::write_buildspec(&home.source(), buildspec);
    let settings = "[worker]\nisolation = 'host'\npass_environment = ['SECRET']\n";
    fs::write(home.source().join("grange.toml"), settings).unwrap();
    let mut command = home.grange(&["build", "--project", "sample"]);
    let built = Built::from(command.env("SECRET", "told").output().unwrap());
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert!(built.stdout.contains("secret is .\n"), "{}", built.stdout);
    // Who names the file means it.
    let mut command = home.grange(&["build", "--project", "sample", "--config", "grange.toml"]);
    let built = Built::from(command.env("SECRET", "told").output().unwrap());
    assert!(
        built.stdout.contains("secret is told.\n"),
        "{}",
        built.stdout
    );
}

#[test]
fn while_one_command_builds_others_look_at_its_farm() {
    let home = Home::new();
    let gate = home.directory.path().join("gate");
    project::write_buildspec(&home.source(), &waits_for(&gate));
    let mut building = home
        .grange(&["build", "--project", "sample"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(building.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "it waits"));
    let listed = home.run(&["builds"]);
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    assert!(listed.stdout.contains("sample#1"), "{}", listed.stdout);
    let second = home.run(&["build", "--project", "sample"]);
    assert_eq!(second.code, 3, "{}", second.stderr);
    assert!(second.stderr.contains("grange up"), "{}", second.stderr);
    let stopped = home.run(&["stop", "sample#1"]);
    assert_eq!(stopped.code, 0, "{}", stopped.stderr);
    assert!(lines.last().is_some());
    assert_eq!(building.wait().unwrap().code(), Some(4));
}

#[test]
fn commands_find_a_farm_that_runs_on_the_users_own_data() {
    let home = Home::new();
    project::write_buildspec(&home.source(), QUICK);
    let up = home.up(&["--listen", "127.0.0.1:0"]);
    let built = home.run(&["build", "--project", "sample", "--detach"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    let listed = home.run(&["builds", "--farm", up.address()]);
    assert!(listed.stdout.contains("sample#1"), "{}", listed.stdout);
    let second = home.run(&["up", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.code, 3, "{}", second.stderr);
    assert!(second.stderr.contains("--data DIR"), "{}", second.stderr);
}

#[test]
fn the_first_interrupt_stops_the_build_and_the_second_one_leaves() {
    let home = Home::new();
    let gate = home.directory.path().join("gate");
    let stubborn = format!(
        "
version: 0.2
phases:
  build:
    commands:
      - trap '' TERM INT; echo it waits; while [ ! -e {} ]; do echo again; sleep 0.1; done
",
        gate.display()
    );
    project::write_buildspec(&home.source(), &stubborn);
    for presses in [1, 2] {
        let errors = home.directory.path().join("build.log");
        let mut building = home
            .grange(&["build", "--project", "sample"])
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(building.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "it waits"));
        interrupt(&building);
        wait::until_true("the wish to stop is told", || {
            fs::read_to_string(&errors).unwrap().contains("once more")
        });
        if presses == 2 {
            interrupt(&building);
        }
        for _line in lines {}
        assert_eq!(building.wait().unwrap().code(), Some(4));
        let errors = fs::read_to_string(&errors).unwrap();
        assert_eq!(errors.matches("once more").count(), 1, "{errors}");
    }
}

#[test]
fn an_interrupt_is_heard_though_nobody_reads_the_output() {
    let home = Home::new();
    let buildspec = "
version: 0.2
phases: {build: {commands: [yes | head -c 20000000; echo over; sleep 600]}}
";
    project::write_buildspec(&home.source(), buildspec);
    let errors = home.directory.path().join("build.log");
    let mut building = home
        .grange(&["build", "--project", "sample"])
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&errors).unwrap())
        .spawn()
        .unwrap();
    // A line, so that it writes, and then no more: the pipe is full before long.
    let mut out = BufReader::with_capacity(1, building.stdout.take().unwrap());
    let mut line = String::new();
    while line != "y\n" {
        line.clear();
        out.read_line(&mut line).unwrap();
    }
    interrupt(&building);
    wait::until_true("the wish to stop is told", || {
        fs::read_to_string(&errors).unwrap().contains("once more")
    });
    interrupt(&building);
    assert_eq!(building.wait().unwrap().code(), Some(4));
}

/// A buildspec that builds until the file is there.
fn waits_for(gate: &Path) -> String {
    format!(
        "
version: 0.2
phases: {{build: {{commands: ['echo it waits; while [ ! -e {} ]; do sleep 0.1; done']}}}}
",
        gate.display()
    )
}

#[test]
fn a_worker_joins_a_farm_in_one_process_with_the_printed_token() {
    let home = Home::new();
    let up = home.up(&["--listen", "127.0.0.1:0", "--workers", "0"]);
    let token = up.token("grange worker --join");
    let mut worker = home
        .grange(&["worker", "--join", up.address(), "--token", token])
        .args(["--name", "guest"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait::until_true("the worker is there", || {
        let listed = home.run(&["workers", "--farm", up.address()]);
        listed.stdout.contains("guest")
    });
    interrupt(&worker);
    assert_eq!(worker.wait().unwrap().code(), Some(0));
}

#[test]
fn commands_hear_signals_that_who_started_the_farm_ignores() {
    let home = Home::new();
    let buildspec = r#"
version: 0.2
phases:
  build:
    commands:
      - |
        for one in HUP INT QUIT; do sh -c "kill -$one \$\$; echo deaf to $one"; done
        echo all were heard
"#;
    project::write_buildspec(&home.source(), buildspec);
    // As `nohup` does, and shells for what they start in the background.
    let mut ignoring = home.command(Path::new("sh"));
    ignoring.args(["-c", "trap '' HUP INT QUIT; exec \"$@\"", "sh"]);
    ignoring
        .arg(grange())
        .args(["build", "--project", "sample"]);
    let built = Built::from(ignoring.output().unwrap());
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert!(
        built.stdout.contains("all were heard\n"),
        "{}",
        built.stdout
    );
    for one in ["HUP", "INT", "QUIT"] {
        let deaf = format!("deaf to {one}");
        assert!(!built.stdout.contains(&deaf), "{}", built.stdout);
    }
}
