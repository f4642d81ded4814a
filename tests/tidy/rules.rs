//! The rules. Each takes a file and answers with a sentence per breach, so that each can be shown a bad file.

use std::collections::BTreeSet;

use super::source::{Source, closing, is_name, line_of, name_at};

/// Which modules a module may use. A row names rows above it only, so there is no circle.
pub const LAYERS: &[(&str, &[&str])] = &[
    ("telemetry", &[]),
    ("http", &[]),
    ("core", &[]),
    ("config", &["core"]),
    ("env", &["core"]),
    ("journal", &["core", "env"]),
    ("index", &["core", "env", "journal"]),
    ("store", &["telemetry", "core", "env", "journal", "index"]),
    ("engine", &["telemetry", "core", "env", "journal", "index", "store"]),
    ("ingress", &["telemetry", "http", "core", "env", "journal", "index", "store", "engine"]),
    ("egress", &["telemetry", "http", "core", "env", "journal", "index", "store", "engine"]),
    ("api", &["telemetry", "http", "core", "env", "journal", "index", "store", "engine"]),
    ("dashboard", &["telemetry", "http", "core", "env", "api"]),
    (
        "daemon",
        &[
            "telemetry",
            "http",
            "core",
            "config",
            "env",
            "journal",
            "index",
            "store",
            "engine",
            "ingress",
            "egress",
            "api",
            "dashboard",
        ],
    ),
    (
        "cli",
        &[
            "telemetry",
            "http",
            "core",
            "config",
            "env",
            "journal",
            "index",
            "store",
            "engine",
            "ingress",
            "egress",
            "api",
            "dashboard",
            "daemon",
        ],
    ),
];

/// Lines that a file may have outside of tests.
pub const FILE_LINES_MAX: usize = 600;

/// Lines that a function may have, from its first to its closing brace.
pub const FUNCTION_LINES_MAX: usize = 70;

/// Crates that a build for use may need, this one included.
pub const CRATES_MAX: usize = 160;

/// The wall clock, the monotonic clock and randomness under the names that our dependencies have for them.
const OUTSIDE_WORLD: &[&str] =
    &["::now", ".elapsed(", "getrandom", "thread_rng", "rand::", "fastrand", "OsRng", "RandomState"];

/// What finished code does not have.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore", "allow(dead_code"];

/// What may end the process without saying why; tests may.
const ABRUPT: &[&str] = &[".unwrap()", ".unwrap_err()", "process::exit(", "process::abort("];

/// Standard output and error belong to the command line; everything else has `tracing`.
const PRINTING: &[&str] = &["println!", "print!", "eprintln!", "eprint!"];

/// The file uses only modules that its own may use.
pub fn imports(source: &Source) -> Vec<String> {
    if source.depth() == 0 || source.is_test {
        return Vec::new();
    }
    let own = source.module();
    let Some((_, allowed)) = LAYERS.iter().find(|(module, _)| *module == own) else {
        return vec![format!("{}: the module `{own}` has no place in LAYERS", source.path)];
    };
    let breach = |(line, used): (usize, String)| {
        let fine = used == own || allowed.contains(&used.as_str());
        (!fine).then(|| format!("{}:{line}: `{own}` may not use `{used}`", source.path))
    };
    used_modules(source).into_iter().filter_map(breach).collect()
}

/// Modules of the crate's root that the file names, with the line.
fn used_modules(source: &Source) -> BTreeSet<(usize, String)> {
    let code = &source.shipped;
    let mut used = BTreeSet::new();
    let mut add = |at: usize| {
        for (at, name) in first_names(code, at) {
            used.insert((line_of(code, at), name.to_owned()));
        }
    };
    for root in ["crate::", "postrider::"] {
        code.match_indices(root).filter(|(at, _)| starts_a_path(code, *at)).for_each(|(at, _)| add(at + root.len()));
    }
    // As many `super` as there are modules above lead to the root, too.
    let to_root = "super::".repeat(source.depth());
    for (at, _) in code.match_indices(&to_root) {
        if starts_a_path(code, at) && !code[at + to_root.len()..].starts_with("super") {
            add(at + to_root.len());
        }
    }
    used
}

/// No name and no path goes on here.
fn starts_a_path(code: &str, at: usize) -> bool {
    at == 0 || !(is_name(code.as_bytes()[at - 1]) || code[..at].ends_with("::"))
}

/// The first name of a path at `at`, or of each path of a `{…}` group there.
fn first_names(code: &str, at: usize) -> Vec<(usize, &str)> {
    if code.as_bytes().get(at) != Some(&b'{') {
        return Some(name_at(code, at)).filter(|name| !name.is_empty()).map(|name| (at, name)).into_iter().collect();
    }
    let mut names = Vec::new();
    let (mut depth, mut expected) = (0_usize, true);
    for i in at + 1..closing(code, at) {
        match code.as_bytes()[i] {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => expected = true,
            byte if expected && depth == 0 && is_name(byte) => {
                expected = false;
                names.push((i, name_at(code, i)));
            }
            _ => {}
        }
    }
    names
}

/// The file is not too long.
pub fn file_size(source: &Source) -> Vec<String> {
    // A test module at the end is not counted; its lines are blank in `shipped`.
    let lines = source.shipped.trim_end().lines().count();
    let too_long = !source.is_test && lines > FILE_LINES_MAX;
    let message = || format!("{}: {lines} lines outside of tests, at most {FILE_LINES_MAX}", source.path);
    too_long.then(message).into_iter().collect()
}

/// No function is too long.
pub fn function_size(source: &Source) -> Vec<String> {
    if source.is_test {
        return Vec::new();
    }
    let code = &source.shipped;
    let mut breaches = Vec::new();
    for (at, _) in code.match_indices("fn ").filter(|(at, _)| starts_a_path(code, *at)) {
        let name = name_at(code, at + 3);
        let Some(open) = body_of(code, at).filter(|_| !name.is_empty()) else { continue };
        let lines = line_of(code, closing(code, open).min(code.len() - 1)) - line_of(code, at) + 1;
        if lines > FUNCTION_LINES_MAX {
            let line = line_of(code, at);
            breaches.push(format!("{}:{line}: `{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}", source.path));
        }
    }
    breaches
}

/// Where the body of the function at `at` opens; `None` for a mere signature.
fn body_of(code: &str, at: usize) -> Option<usize> {
    let mut i = at;
    while i < code.len() {
        match code.as_bytes()[i] {
            b'{' => return Some(i),
            b';' => return None,
            b'(' | b'[' => i = closing(code, i) + 1,
            _ => i += 1,
        }
    }
    None
}

/// Time and randomness are passed in.
pub fn outside_world(source: &Source) -> Vec<String> {
    if source.module() == "env" || source.is_test { Vec::new() } else { words(source, &source.shipped, OUTSIDE_WORLD) }
}

/// The code is finished, and does not end the process on its own.
pub fn banned_words(source: &Source) -> Vec<String> {
    let mut breaches = words(source, &source.code, UNFINISHED);
    if !source.is_test {
        breaches.extend(words(source, &source.shipped, ABRUPT));
        if !matches!(source.module(), "cli" | "main") {
            breaches.extend(words(source, &source.shipped, PRINTING));
        }
    }
    breaches
}

fn words(source: &Source, code: &str, banned: &[&str]) -> Vec<String> {
    let mut breaches = Vec::new();
    for word in banned {
        for (at, _) in code.match_indices(word) {
            // `::now_ms` and `eprintln!` are other words than `::now` and `println!`.
            let is_start = !is_name(word.as_bytes()[0]) || at == 0 || !is_name(code.as_bytes()[at - 1]);
            let after = code.as_bytes().get(at + word.len()).copied().unwrap_or(b' ');
            let is_end = !is_name(word.as_bytes()[word.len() - 1]) || !is_name(after);
            if is_start && is_end {
                breaches.push(format!("{}:{}: `{word}` is not for here", source.path, line_of(code, at)));
            }
        }
    }
    breaches
}

/// The file begins by saying what it is for.
pub fn file_header(source: &Source) -> Vec<String> {
    let said = source.text.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > 4);
    (!said)
        .then(|| format!("{}:1: expected a line `//! …` that says what the file is for", source.path))
        .into_iter()
        .collect()
}

/// Nothing names a path of the machine that it was written on.
pub fn machine_paths(path: &str, text: &str) -> Vec<String> {
    // Put together here, so that this file keeps its own rule.
    let needles = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), ["/ho", "me/"].concat()];
    let mut breaches = Vec::new();
    for needle in &needles {
        for (at, _) in text.match_indices(needle.as_str()) {
            if at == 0 || !is_name(text.as_bytes()[at - 1]) {
                breaches.push(format!("{path}:{}: {needle}… is a path of one machine", line_of(text, at)));
            }
        }
    }
    breaches
}

/// Relative targets of a Markdown file's links, with their lines; without what points into a page.
pub fn links(text: &str) -> Vec<(usize, &str)> {
    let target = |(at, _): (usize, &str)| {
        let target = &text[at + 2..at + 2 + text[at + 2..].find(')')?];
        let file = target.split('#').next().unwrap_or_default();
        (!file.is_empty() && !file.contains("://")).then_some((line_of(text, at), file))
    };
    text.match_indices("](").filter_map(target).collect()
}

/// Crates in what `cargo tree --prefix none` prints, each once.
pub fn crates(tree: &str) -> BTreeSet<String> {
    let name_and_version = |line: &str| {
        let mut words = line.split_whitespace();
        Some(format!("{} {}", words.next()?, words.next()?))
    };
    tree.lines().filter_map(name_and_version).collect()
}
