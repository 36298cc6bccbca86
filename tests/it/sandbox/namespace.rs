//! Level `namespace`: what commands see, and that their changes are in the upper directory and nowhere
//! else.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use protocol::worker::Isolation;
use worker::sandbox::{Sandbox, SandboxSpec};

use super::{Ground, command, exists, namespaces, phase, runtime};

#[test]
fn changes_are_in_the_upper_directory_and_the_host_is_as_before() {
    let runtime = runtime();
    runtime.block_on(async {
        if !namespaces().await {
            return;
        }
        let ground = Ground::new(Isolation::Namespace);
        let name = format!("grange-test-{}", std::process::id());
        let text = format!(
            "echo a > /opt/{name}; echo b > /root/{name}; echo c > /tmp/{name}; rm /etc/passwd; \
             mkdir /usr/{name}; chown 7:8 /opt/{name}"
        );
        let phase = phase(ground.spec("phase", &[]), &[&text]).await;
        assert_eq!((phase.codes(), phase.log.as_str()), (vec![0], ""));
        let upper = ground.path("phase/upper");
        for (place, text) in [("opt", "a\n"), ("root", "b\n"), ("tmp", "c\n")] {
            assert_eq!(
                fs::read_to_string(upper.join(place).join(&name)).unwrap(),
                text
            );
            assert!(!exists(&Path::new("/").join(place).join(&name)));
        }
        let owner = fs::metadata(upper.join("opt").join(&name)).unwrap();
        assert_eq!((owner.uid(), owner.gid()), (7, 8));
        assert!(exists(Path::new("/etc/passwd")));
        let whiteout = fs::symlink_metadata(upper.join("etc/passwd")).unwrap();
        assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
        // What a sandbox needs for itself is in no layer.
        let mut changed: Vec<_> = fs::read_dir(&upper)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        changed.sort();
        assert_eq!(changed, ["etc", "opt", "root", "tmp", "usr"]);
    });
}

#[test]
fn the_next_phase_stands_on_the_layers_of_the_earlier_ones() {
    let runtime = runtime();
    runtime.block_on(async {
        if !namespaces().await {
            return;
        }
        let ground = Ground::new(Isolation::Namespace);
        let first = "mkdir -p /opt/d/e; echo 1 > /opt/d/f; echo 1 > /tmp/keep; echo 1 > /opt/gone";
        phase(ground.spec("first", &[]), &[first]).await;
        let second = "cat /opt/d/f; echo 2 > /opt/d/f; rm /opt/gone; echo x >> /etc/hosts";
        let log = phase(ground.spec("second", &["first"]), &[second])
            .await
            .log;
        assert_eq!(log, "1\n");
        let third =
            "cat /opt/d/f /tmp/keep; ls /opt/gone 2>/dev/null; tail -n 1 /etc/hosts; ls /opt/d";
        let log = phase(ground.spec("third", &["second", "first"]), &[third])
            .await
            .log;
        assert_eq!(log, "2\n1\nx\ne\nf\n");
    });
}

#[test]
fn many_layers_fit_and_two_sandboxes_share_them() {
    let runtime = runtime();
    runtime.block_on(async {
        if !namespaces().await {
            return;
        }
        let ground = Ground::new(Isolation::Namespace);
        let names: Vec<String> = (0..64).map(|number| format!("layer,{number}:")).collect();
        for (number, name) in names.iter().enumerate() {
            let directory = ground.path(name).join("upper/opt/layers");
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(number.to_string()), b"").unwrap();
            fs::write(directory.join("top"), number.to_string()).unwrap();
        }
        let layers: Vec<&str> = names.iter().map(String::as_str).collect();
        let commands = ["ls /opt/layers | wc -l; cat /opt/layers/top"];
        let (one, other) = tokio::join!(
            phase(ground.spec("one", &layers), &commands),
            phase(ground.spec("other", &layers), &commands),
        );
        assert_eq!(one.log, "65\n0");
        assert_eq!(other.log, "65\n0");
    });
}

#[test]
fn what_is_hidden_cannot_be_seen_or_moved_into_sight() {
    let runtime = runtime();
    runtime.block_on(async {
        if !namespaces().await {
            return;
        }
        let ground = Ground::new(Isolation::Namespace);
        let secret = tempfile::Builder::new()
            .prefix("grange-test-")
            .tempdir_in("/var/lib")
            .unwrap();
        fs::write(secret.path().join("key"), b"secret").unwrap();
        let spec = |name: &str, earlier: &[&str]| SandboxSpec {
            hidden: vec![secret.path().to_owned()],
            docker_socket: None,
            ..ground.spec(name, earlier)
        };
        let name = secret.path().file_name().unwrap().to_str().unwrap();
        let look = format!(
            "ls -d /var/lib/{name} /tmp/* /run/* /var/tmp/* 2>/dev/null; mv /var/lib /var/other; \
             ls -d /var/other/{name} 2>/dev/null; ls -d /var/other/dpkg"
        );
        let first = phase(spec("first", &[]), &[&look]).await;
        assert_eq!(first.log, "/run/lock\n/var/other/dpkg\n");
        let look = format!("ls -d /var/other/{name} /var/lib 2>/dev/null; ls -d /var/other/dpkg");
        let second = phase(spec("second", &["first"]), &[&look]).await;
        assert_eq!(second.log, "/var/other/dpkg\n");
        assert_eq!(fs::read(secret.path().join("key")).unwrap(), b"secret");
    });
}

#[test]
fn a_renamed_directory_is_found_and_its_content_is_in_the_view() {
    let runtime = runtime();
    runtime.block_on(async {
        if !namespaces().await {
            return;
        }
        let ground = Ground::new(Isolation::Namespace);
        phase(
            ground.spec("first", &[]),
            &["mkdir -p /opt/a/b; echo x > /opt/a/b/c"],
        )
        .await;
        let mut sandbox = Sandbox::start(ground.spec("second", &["first"]))
            .await
            .unwrap();
        let exit = sandbox
            .run(&command(
                "mv /opt/a /opt/z && ln -s /etc/passwd /opt/z/link",
            ))
            .await;
        assert_eq!(exit.unwrap().code, 0);
        sandbox.quiesce().await.unwrap();
        let upper = ground.path("second/upper");
        // The mark by which a capture knows that it has to look into the view.
        let mark = rustix::fs::getxattr(
            upper.join("opt/z"),
            "trusted.overlay.redirect",
            &mut [0_u8; 256],
        );
        assert!(mark.unwrap() > 0);
        assert!(!exists(&upper.join("opt/z/b/c")), "the overlay copied it");
        let view = sandbox.view().to_owned();
        assert_eq!(fs::read(view.join("opt/z/b/c")).unwrap(), b"x\n");
        sandbox.finish().await.unwrap();
        assert!(!exists(&view));
    });
}

#[test]
fn names_of_one_file_stay_names_of_one_file() {
    let runtime = runtime();
    runtime.block_on(async {
        if !namespaces().await {
            return;
        }
        let ground = Ground::new(Isolation::Namespace);
        phase(
            ground.spec("first", &[]),
            &["echo 1 > /opt/one; ln /opt/one /opt/two"],
        )
        .await;
        let text = "echo 2 >> /opt/one; cat /opt/two; stat -c %h /opt/one /opt/two";
        let log = phase(ground.spec("second", &["first"]), &[text]).await.log;
        assert_eq!(log, "1\n2\n2\n2\n");
    });
}

#[test]
fn commands_can_do_what_installing_takes_and_cannot_touch_the_machine() {
    let runtime = runtime();
    runtime.block_on(async {
        if !namespaces().await {
            return;
        }
        let ground = Ground::new(Isolation::Namespace);
        let can = "id -u; hostname; grep -c grange /etc/hosts; echo $HOME; head -c 3 /dev/zero | wc -c; \
            echo > /dev/null; test -w /dev/shm && mkfifo /dev/shm/p && test -d /proc/self && \
            su -s /bin/sh nobody -c 'id -un'; touch /usr/bin/new-program && chown 1:1 /usr/bin/new-program && \
            echo pid $(ls /proc | grep -cx 1); test -e /sys/kernel && readlink /codebuild/bin/codebuild-hash-files; \
            test -x /codebuild/bin/grange && echo helper";
        // Each of these would do no harm if it succeeded; what would is asked for, not tried.
        let cannot = "mount -t tmpfs none /opt 2>/dev/null && echo mounted; \
            umount /proc/sys 2>/dev/null && echo bared; \
            for f in /proc/sys/vm/swappiness /proc/sysrq-trigger /sys/kernel /sys/fs/cgroup /dev \
            /codebuild/bin/grange; do test -w $f && echo can write $f; done; \
            mknod /opt/disk b 254 0 && (head -c 1 /opt/disk) 2>/dev/null && echo disk; \
            hostname other 2>/dev/null && echo other; \
            ls /proc/1/root/etc 2>/dev/null >/dev/null && echo init; \
            rm -rf /codebuild/output/tmp 2>/dev/null && echo state; \
            grep CapBnd /proc/self/status";
        let phase = phase(ground.spec("phase", &[]), &[can, cannot]).await;
        let expected = "0\ngrange\n1\n/root\n3\nnobody\npid 1\ngrange\nhelper\n";
        // The capabilities that containers have: no mounts, clock, modules, network set-up.
        let expected = format!("{expected}CapBnd:\t00000000a80425fb\n");
        assert_eq!(phase.log, expected);
    });
}
