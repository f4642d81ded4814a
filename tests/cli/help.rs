//! Help is purpose, arguments, examples; and what the program does with a line that it does not take.

use crate::support::{postrider, run};

const COMMANDS: &[&[&str]] = &[
    &["serve"],
    &["demo"],
    &["bench"],
    &["send"],
    &["events"],
    &["deliveries"],
    &["dead"],
    &["replay"],
    &["endpoint"],
    &["endpoint", "list"],
    &["endpoint", "enable"],
    &["endpoint", "disable"],
    &["verify"],
    &["sign"],
    &["journal"],
    &["journal", "verify"],
    &["journal", "dump"],
    &["journal", "rebuild"],
    &["journal", "salvage"],
    &["config"],
    &["config", "check"],
    &["completions"],
];

/// Commands that read, which all speak JSON.
const READS: &[&str] = &["events", "deliveries", "dead", "endpoint list", "verify", "journal verify", "journal dump"];

#[test]
fn every_command_says_what_it_is_for_and_gives_an_example() {
    let home = tempfile::tempdir().unwrap();
    for command in COMMANDS {
        let help = run(home.path(), &[command, &["--help"][..]].concat(), b"").expect(0);
        let example = format!("  postrider {}", command.join(" "));
        assert!(help.stdout.contains("Examples:") && help.stdout.contains(&example), "{command:?}: {}", help.stdout);
        if READS.contains(&command.join(" ").as_str()) {
            assert!(help.stdout.contains("--json"), "{command:?}");
        }
    }
}

#[test]
fn help_lists_every_command_and_the_exit_codes() {
    let home = tempfile::tempdir().unwrap();
    let help = run(home.path(), &["--help"], b"").expect(0).stdout;
    for command in COMMANDS {
        assert!(help.contains(&format!("  {} ", command[0])), "{command:?}");
    }
    let one_line = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(one_line.contains("3 configuration, 4 store held by another process"), "{help}");
}

#[test]
fn a_line_that_is_not_taken_is_a_usage_error_on_stderr() {
    let home = tempfile::tempdir().unwrap();
    let bad: &[&[&str]] = &[
        &[],
        &["nothing"],
        &["verify"],
        &["verify", "--provider", "nobody", "--secret", "s"],
        &["verify", "--provider", "hmac", "--secret", "s"],
        &["verify", "--provider", "github", "--secret", "s", "-H", "no colon"],
        &["verify", "--provider", "github", "--secret", "s", "--body", "no such file"],
        &["sign", "--secret", "s"],
        &["replay"],
        &["replay", "msg_x", "--limit", "3"],
        &["events", "--content"],
        &["events", "--server", "localhost:8081"],
        &["send", "--type", "a", "not json"],
        &["serve", "--log", "loud"],
        &["journal", "verify", "--data", "nowhere"],
    ];
    for args in bad {
        let done = run(home.path(), args, b"").expect(2);
        assert!(done.stdout.is_empty() && !done.stderr.is_empty(), "{args:?}");
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "a wrong line must not make files");
}

#[test]
fn a_reader_who_has_seen_enough_is_no_failure() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["completions", "bash"][..], &["config", "check", "--json"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = postrider(home.path());
        let output = command.args(args).stdout(writer).spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn completions_name_the_commands() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = run(home.path(), &["completions", shell], b"").expect(0).stdout;
        assert!(script.contains("salvage") && script.contains("tolerance-s"), "{shell}");
    }
}
