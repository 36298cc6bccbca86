//! What carries over from command to command, and what shells see: the wrapper of buildspec 0.2.

use std::{fs, time::Duration};

use protocol::{
    job::{Shell, ShellState},
    worker::Isolation,
};
use worker::sandbox::{Expansion, Sandbox, SandboxSpec};

use super::{Ground, check, command, levels, phase, runtime};

#[test]
fn variables_and_directory_carry_over_without_export() {
    check(
        &[
            "cd /usr && FIRST='a b' && mkdir -p /tmp && LAST=\"it's \\$x\"",
            "pwd; echo \"$FIRST|$LAST\"; sh -c 'echo child: $FIRST'; FIRST=2",
            "echo $FIRST; echo $CODEBUILD_LAST_EXIT",
        ],
        "/usr\na b|it's $x\nchild: a b\n2\n0\n",
    );
}

#[test]
fn functions_aliases_options_and_traps_do_not_carry_over() {
    check(
        &[
            "f() { echo f; }; alias g='echo g'; set -u; trap 'echo bye' EXIT; umask 077; f",
            "f 2>/dev/null; g 2>/dev/null; echo \"unset: $NO_SUCH\"; umask",
        ],
        "f\nbye\nunset: \n0022\n",
    );
}

#[test]
fn a_command_that_leaves_its_shell_saves_nothing() {
    let runtime = runtime();
    runtime.block_on(async {
        for level in levels().await {
            let ground = Ground::new(level);
            let commands = [
                "A=1; cd /usr",
                "A=2; B=3; cd /; exit 5",
                "echo $A$B; pwd",
                "set -e; A=4; false",
            ];
            let phase = phase(ground.spec("phase", &[]), &commands).await;
            assert_eq!(phase.log, "1\n/usr\n");
            assert_eq!(phase.codes(), [0, 5, 0, 1]);
            assert_eq!(phase.variable("A"), Some(&b"1"[..]));
            assert_eq!(phase.carried.directory, b"/usr");
        }
    });
}

#[test]
fn an_unset_variable_is_gone_wherever_it_came_from() {
    let runtime = runtime();
    runtime.block_on(async {
        for level in levels().await {
            let ground = Ground::new(level);
            let mut spec = ground.spec("phase", &[]);
            spec.variables.insert("GIVEN".to_owned(), b"1".to_vec());
            let commands = [
                "MADE=1",
                "unset GIVEN MADE",
                "echo \"${GIVEN-none} ${MADE-none}\"",
            ];
            let phase = phase(spec, &commands).await;
            assert_eq!(phase.log, "none none\n");
            assert_eq!(phase.variable("GIVEN"), None);
            assert_eq!(phase.variable("MADE"), None);
        }
    });
}

#[test]
fn state_goes_from_phase_to_phase_as_raw_bytes() {
    let runtime = runtime();
    runtime.block_on(async {
        for shell in [Shell::Sh, Shell::Bash] {
            for level in levels().await {
                let ground = Ground::new(level);
                let first = SandboxSpec {
                    shell,
                    ..ground.spec("first", &[])
                };
                let commands = [
                    "RAW=$(printf 'a\\377\\n\\047\"$`\\\\b\\001')",
                    "cd /usr/bin",
                ];
                let before = phase(first, &commands).await;
                let raw = b"a\xff\n'\"$`\\b\x01";
                assert_eq!(before.variable("RAW"), Some(&raw[..]));
                let second = SandboxSpec {
                    shell,
                    ..ground.next("second", &["first"], &before.carried)
                };
                let after = phase(second, &["printf %s \"$RAW\" | od -An -tx1; pwd"]).await;
                assert_eq!(after.log, " 61 ff 0a 27 22 24 60 5c 62 01\n/usr/bin\n");
            }
        }
    });
}

#[test]
fn arrays_of_bash_do_not_carry_over() {
    let runtime = runtime();
    runtime.block_on(async {
        let ground = Ground::new(Isolation::Host);
        let spec = SandboxSpec {
            shell: Shell::Bash,
            ..ground.spec("phase", &[])
        };
        let commands = [
            "a=(x 'y z'); declare -A m=([k]=v); B=1",
            "echo \"${#a[@]} ${#m[@]} $B ${BASH_VERSION:+bash}\"",
        ];
        let phase = phase(spec, &commands).await;
        assert_eq!(phase.log, "0 0 1 bash\n");
    });
}

#[test]
fn version_0_1_starts_every_command_afresh() {
    let runtime = runtime();
    runtime.block_on(async {
        for level in levels().await {
            let ground = Ground::new(level);
            let mut spec = SandboxSpec {
                state: ShellState::Fresh,
                directory: b"/usr".to_vec(),
                ..ground.spec("phase", &[])
            };
            spec.variables.insert("A".to_owned(), b"1".to_vec());
            let commands = ["pwd; cd /; A=2; B=3", "pwd; echo $A$B"];
            let phase = phase(spec, &commands).await;
            let source = ground.source();
            assert_eq!(phase.log, format!("{0}\n{0}\n1\n", source.display()));
            assert_eq!(phase.variable("A"), Some(&b"1"[..]));
        }
    });
}

#[test]
fn nothing_of_the_workers_environment_gets_in() {
    check(
        &[
            // `GRANGE_SANDBOX` marks whose a process is where there is no namespace.
            "env | cut -d= -f1 | grep -vxE 'PATH|HOME|PWD|OLDPWD|SHLVL|GRANGE_SANDBOX|_' ; echo end; ls /proc/self/fd | wc -l",
        ],
        // Standard input, output and error, and the directory that `ls` reads.
        "end\n4\n",
    );
}

#[test]
fn output_keeps_its_order_and_input_is_empty() {
    let mut expected = String::new();
    for number in 1..=300 {
        expected.push_str(&format!("out {number}\nerr {number}\n"));
    }
    let text = "cat; i=1; while [ $i -le 300 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
    check(&[text], &expected);
}

#[test]
fn more_output_than_a_pipe_holds_comes_through() {
    let runtime = runtime();
    runtime.block_on(async {
        for level in levels().await {
            let ground = Ground::new(level);
            let text = "head -c 3000000 /dev/zero | tr '\\0' x";
            let phase = phase(ground.spec("phase", &[]), &[text]).await;
            assert_eq!(phase.log.len(), 3_000_000);
        }
    });
}

#[test]
fn exits_are_told_as_shells_tell_them() {
    let runtime = runtime();
    runtime.block_on(async {
        for level in levels().await {
            let ground = Ground::new(level);
            let commands = [
                "exit 7",
                "kill -9 $$",
                "sh -c 'kill -15 $$'",
                "no-such-program 2>/dev/null",
                "if true; then",
            ];
            let phase = phase(ground.spec("phase", &[]), &commands).await;
            assert_eq!(phase.codes(), [7, 137, 143, 127, 2]);
            let signals: Vec<_> = phase.exits.iter().map(|exit| exit.signal).collect();
            assert_eq!(signals, [None, Some(9), None, None, None]);
        }
    });
}

#[test]
fn a_command_may_be_long_and_hold_anything() {
    let long = format!(
        "cat <<'E' | wc -c\n{}\nE",
        "0123456789abcde\n".repeat(40_000)
    );
    check(
        &[
            &long,
            "echo \"tab\there\" 'quote\"s' \\\\ # a comment",
            "",
            "# nothing",
            "echo 'a\nb'",
        ],
        "640001\ntab\there quote\"s \\\na\nb\n",
    );
}

#[test]
fn variables_that_are_too_large_are_lost_by_name() {
    let runtime = runtime();
    runtime.block_on(async {
        for level in levels().await {
            let ground = Ground::new(level);
            let commands = [
                "A=1",
                "A=2; BIG=$(head -c 200000 /dev/zero | tr '\\0' x)",
                "echo $A${BIG-}",
            ];
            let phase = phase(ground.spec("phase", &[]), &commands).await;
            let lost = phase.exits[1].state_lost.as_deref().unwrap();
            assert!(lost.contains("`BIG` has 200000 bytes"), "{lost}");
            assert_eq!(phase.log, "1\n");
        }
    });
}

#[test]
fn commands_cannot_lead_the_keeper_astray() {
    let runtime = runtime();
    runtime.block_on(async {
        for level in levels().await {
            let ground = Ground::new(level);
            let (state, victim) = match level {
                Isolation::Host => (ground.path("phase/work/state"), ground.path("victim")),
                Isolation::Namespace => ("/codebuild/output/tmp".into(), "/opt/victim".into()),
            };
            let (state, victim) = (state.display(), victim.display());
            let link = format!(
                "echo safe > {victim}; cd {state}; for f in script.sh env.sh; do ln -sf {victim} $f; done; \
                 mkfifo dir.txt.new; exit 0"
            );
            let look = format!("cat {victim}; test ! -p {state}/dir.txt.new && echo gone");
            let phase = phase(ground.spec("phase", &[]), &[&link, &look]).await;
            assert_eq!(phase.log, "safe\ngone\n");
        }
    });
}

#[test]
fn words_expand_as_in_double_quotes() {
    let runtime = runtime();
    runtime.block_on(async {
        for level in levels().await {
            let ground = Ground::new(level);
            if level == Isolation::Host {
                fs::create_dir_all(ground.source()).unwrap();
            }
            let mut sandbox = Sandbox::start(ground.spec("phase", &[])).await.unwrap();
            sandbox.run(&command("V='1 2'; cd /usr")).await.unwrap();
            let source = ground.source().display().to_string();
            let expected = [
                ("npm-$(echo \"a b\")-$V", "npm-a b-1 2".to_owned()),
                (
                    "say \"it's\" * $NO_SUCH\\$V `echo x`",
                    "say \"it's\" * $V x".to_owned(),
                ),
                ("$(pwd)", source),
                ("", String::new()),
                ("two\nlines", "two\nlines".to_owned()),
            ];
            for (text, expected) in expected {
                let expansion = sandbox.expand(text).await.unwrap();
                assert_eq!(expansion, Expansion::Word(expected.into_bytes()), "{text}");
            }
            let expansion = sandbox.expand("${").await.unwrap();
            assert!(matches!(expansion, Expansion::Failed(_)), "{expansion:?}");
            let expansion = sandbox
                .expand("$(head -c 20000 /dev/zero | tr '\\0' x)")
                .await;
            assert_eq!(expansion.unwrap(), Expansion::TooLong);
            let limit = Duration::from_millis(100);
            let expansion = sandbox.expand_within("$(sleep 1000)", limit).await;
            assert_eq!(expansion.unwrap(), Expansion::TimedOut);
            // None of this is in the way of the next command, or of what carries over.
            let exit = sandbox
                .run(&command("test \"$V\" = '1 2' && test $(pwd) = /usr"))
                .await;
            assert_eq!(exit.unwrap().code, 0);
            sandbox.finish().await.unwrap();
        }
    });
}
