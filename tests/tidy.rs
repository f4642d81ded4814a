//! Style as a test: walks the sources and holds them against the rules of the house.
//!
//! Modules depend on each other in one direction, files and functions stay small, time and randomness come from `env`
//! only, nothing unfinished is left, and the tree of dependencies stays small. Every rule is also shown a file that breaks
//! it: a rule that can't fail is none.

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rules::{CRATES_MAX, FILE_LINES_MAX, FUNCTION_LINES_MAX, LAYERS};
use source::{Source, files, mark_tests, read_tree};

type Rule = fn(&Source) -> Vec<String>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Holds every file of `src/` against a rule.
fn hold(rule: Rule) {
    let sources = read_tree(&root().join("src"));
    assert!(sources.len() > 50, "only {} files found: the walk is broken", sources.len());
    let breaches: Vec<String> = sources.iter().flat_map(rule).collect();
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

/// Shows a rule a file that breaks it and one that does not.
fn show(rule: Rule, path: &str, bad: &str, good: &str) {
    assert_ne!(rule(&Source::new(path, bad)), Vec::<String>::new(), "this passes:\n{bad}");
    assert_eq!(rule(&Source::new(path, good)), Vec::<String>::new(), "this is refused:\n{good}");
}

#[test]
fn modules_depend_in_one_direction() {
    hold(rules::imports);
}

#[test]
fn a_dependency_in_the_other_direction_is_found() {
    let imports = rules::imports;
    let good = "use crate::core::id::EventId;\nuse crate::{core, env::Clock};\n// use crate::api;\nconst S: &str = \"crate::api\";\n";
    for bad in [
        "use crate::engine::Plan;",
        "use crate::{core::{id, api}, engine};",
        "use crate::{\n    core::id,\n    engine::{\n        Plan,\n    },\n};",
        "fn f() { crate::engine::run() }",
        "use super::super::engine;",
        "use super::super::{core, engine::Plan};",
        "use postrider::engine;",
    ] {
        show(imports, "store/types.rs", bad, good);
        show(imports, "store/types.rs", &format!("{bad}\n#[cfg(test)]\nmod tests {{}}\n"), good);
    }
    show(imports, "core/id.rs", "use crate::env::Clock;", "use super::retry;\nuse crate::core::id;\n");
    show(imports, "http/mod.rs", "use super::core;", "use self::body::read;\n");
    show(imports, "config/mod.rs", "use crate::env::Clock;", "use crate::core::secret::Secret;\n");
    // Tests may look anywhere.
    show(imports, "core/id.rs", "use crate::env::Clock;", "#[cfg(test)]\nmod tests { use crate::env::Clock; }\n");
    assert_ne!(imports(&Source::new("newcomer/mod.rs", "")), Vec::<String>::new());
}

#[test]
fn the_layers_are_no_circle() {
    for (i, (module, allowed)) in LAYERS.iter().enumerate() {
        for used in *allowed {
            assert!(
                LAYERS[..i].iter().any(|(above, _)| above == used),
                "`{module}` may use `{used}`, which is not above it"
            );
        }
    }
}

#[test]
fn files_stay_small() {
    hold(rules::file_size);
}

#[test]
fn a_long_file_is_found() {
    let lines = |n: usize| "const A: u8 = 0;\n".repeat(n);
    let tested = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(FILE_LINES_MAX), lines(FILE_LINES_MAX));
    show(rules::file_size, "core/id.rs", &lines(FILE_LINES_MAX + 1), &tested);
}

#[test]
fn functions_stay_small() {
    hold(rules::function_size);
}

#[test]
fn a_long_function_is_found() {
    let function = |head: &str, lines: usize| format!("{head} {{\n{}}}\n", "    call();\n".repeat(lines - 2));
    for head in
        ["fn f()", "pub(crate) async fn f(a: [u8; 3]) -> u8\nwhere\n    u8: Copy,", "    const fn f<'a>(c: &'a u8)"]
    {
        let room = FUNCTION_LINES_MAX - head.lines().count() + 1;
        show(rules::function_size, "core/id.rs", &function(head, room + 1), &function(head, room));
    }
    // Braces in literals and comments count for nothing.
    let braces = "fn f() {\n    let a = ['{', '\\''];\n    let b = \"{\"; // {\n    let c = r#\"{\"#; /* { */\n}\n";
    let good = format!("{braces}{}", function("fn g()", FUNCTION_LINES_MAX));
    show(rules::function_size, "core/id.rs", &format!("{braces}{}", function("fn g()", FUNCTION_LINES_MAX + 1)), &good);
}

#[test]
fn time_and_randomness_come_from_env() {
    hold(rules::outside_world);
}

#[test]
fn a_clock_of_ones_own_is_found() {
    let rule = rules::outside_world;
    let good = "let t = store.now_ms(); // not Instant::now\nfn now() {}\n#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }\n";
    for bad in [
        "Instant::now()",
        "let f = SystemTime::now;",
        "tokio::time::Instant::now()",
        "t.elapsed()",
        "getrandom::getrandom(&mut b)",
        "rand::random()",
    ] {
        show(rule, "engine/run.rs", bad, good);
        show(rule, "engine/run.rs", bad, "");
        assert_eq!(rule(&Source::new("env/clock.rs", bad)), Vec::<String>::new());
    }
}

#[test]
fn nothing_unfinished_or_abrupt_is_left() {
    hold(rules::banned_words);
}

#[test]
fn banned_words_are_found() {
    let rule = rules::banned_words;
    let good = "let a = b.unwrap_or(1).expect(\"a todo! in a text\"); // dbg!(a)\n";
    for bad in
        ["todo!()", "unimplemented!()", "dbg!(1)", "a.unwrap()", "println!()", "eprintln!()", "std::process::exit(1)"]
    {
        show(rule, "store/mod.rs", bad, good);
    }
    // These not even in tests.
    for bad in ["#[ignore]", "#[ignore = \"slow\"]", "#[allow(dead_code)]", "todo!()"] {
        show(rule, "store/mod.rs", &format!("#[cfg(test)]\nmod tests {{ {bad} }}"), good);
    }
    show(rule, "cli/send.rs", "a.unwrap()", "println!(\"{id}\");\n");
    show(rule, "store/mod.rs", "a.unwrap()", "#[cfg(test)]\nmod tests { fn f() { a.unwrap(); println!(); } }\n");
}

#[test]
fn every_file_says_what_it_is_for() {
    hold(rules::file_header);
    let outside = ["tests", "benches"].iter().flat_map(|folder| read_tree(&root().join(folder)));
    let breaches: Vec<String> = outside.flat_map(|source| rules::file_header(&source)).collect();
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn a_file_without_a_header_is_found() {
    show(rules::file_header, "core/id.rs", "use std::fmt;\n", "//! Typed ids.\n");
    show(rules::file_header, "core/id.rs", "//!\n//! Typed ids.\n", "//! Typed ids.\nuse std::fmt;\n");
}

#[test]
fn nothing_names_a_path_of_one_machine() {
    let mut breaches = Vec::new();
    let folders = ["src", "tests", "benches", "fuzz", "docs", ".ci"];
    let mut paths: Vec<PathBuf> =
        folders.iter().flat_map(|f| files(&root().join(f), &["rs", "md", "toml", "py", "json"])).collect();
    paths.extend(
        ["README.md", "CHANGELOG.md", "Cargo.toml", "clippy.toml", "deny.toml", ".ci/run"].map(|f| root().join(f)),
    );
    for path in paths {
        // Not every one of them must be there.
        if let Ok(text) = std::fs::read_to_string(&path) {
            breaches.extend(rules::machine_paths(&path.display().to_string(), &text));
        }
    }
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn a_path_of_one_machine_is_found() {
    let path = ["/ro", "ot/.cargo"].concat();
    assert_eq!(rules::machine_paths("a.md", &format!("\nsee {path}")).len(), 1);
    assert_eq!(rules::machine_paths("a.md", "see docs/network/adr and a/root-cause"), Vec::<String>::new());
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut pages = files(&root().join("docs"), &["md"]);
    pages.extend(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    let mut breaches = Vec::new();
    for page in &pages {
        let text = std::fs::read_to_string(page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        let folder = page.parent().expect("a file is in a folder");
        let broken = rules::links(&text).into_iter().filter(|(_, target)| !folder.join(target).exists());
        breaches.extend(broken.map(|(line, target)| format!("{}:{line}: {target} is not there", page.display())));
    }
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn links_are_found() {
    let text = "[a](docs/b.md#c) and [d](#e)\n[f](https://g.example/h) [ADR\n1](adr/1.md)";
    assert_eq!(rules::links(text), [(1, "docs/b.md"), (3, "adr/1.md")]);
}

#[test]
fn modules_of_tests_in_files_of_their_own_are_tests() {
    let parent = Source::new("store/memory.rs", "//! Store.\nmod state;\n#[cfg(test)]\nmod tests;\n");
    let mut sources =
        ["store/memory/state.rs", "store/memory/tests.rs", "store/memory/tests/more.rs", "store/tests.rs"]
            .map(|path| Source::new(path, "//! Something.\n"))
            .to_vec();
    sources.push(parent);
    mark_tests(&mut sources);
    let tests: Vec<&str> = sources.iter().filter(|s| s.is_test).map(|s| s.path.as_str()).collect();
    assert_eq!(tests, ["store/memory/tests.rs", "store/memory/tests/more.rs"]);
}

#[test]
fn few_crates_are_needed() {
    let Some(tree) = dependency_tree(&root()) else {
        // Written to the stream itself, because what a passing test prints is not shown.
        let _ =
            writeln!(std::io::stderr(), "SKIPPED: the dependency tree was not counted, since `cargo tree` did not run");
        return;
    };
    let crates = rules::crates(&tree);
    assert!(crates.len() > 20 && crates.iter().any(|c| c.starts_with("sled v0.34.7")), "no tree of ours:\n{tree}");
    assert!(crates.len() <= CRATES_MAX, "{} crates, at most {CRATES_MAX}:\n{tree}", crates.len());
}

#[test]
fn crates_are_counted_once_each() {
    let tree =
        "postrider v0.1.0 (/somewhere)\nbytes v1.0.0\nsyn v2.0.0 (proc-macro)\nbytes v1.0.0 (*)\nbytes v2.0.0\n\n";
    assert_eq!(rules::crates(tree).len(), 4);
}

/// What `cargo tree` says of a build for use, without the network; `None` when it can't be asked.
fn dependency_tree(root: &Path) -> Option<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "-e", "normal", "--prefix", "none", "--locked", "--offline"])
        .current_dir(root)
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
