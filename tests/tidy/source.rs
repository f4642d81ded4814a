//! A source file as the rules see it: text, and the code in it without comments, literals and tests.
//!
//! This is no parser of Rust. It knows just enough to blank out what is not code, so that a word in a comment or a string
//! breaks no rule, and keeps every line where it was.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A file of the source tree.
#[derive(Debug, Clone)]
pub struct Source {
    /// Relative to `src/`, such as `store/mod.rs`.
    pub path: String,
    /// As it is.
    pub text: String,
    /// Comments and the insides of literals are blanks; lines are where they were.
    pub code: String,
    /// `code` without items under `#[cfg(test)]`.
    pub shipped: String,
    /// The whole file is a test module.
    pub is_test: bool,
}

impl Source {
    /// Reads one file's text.
    pub fn new(path: &str, text: &str) -> Self {
        let code = blank_non_code(text);
        let shipped = blank_tests(&code);
        Self { path: path.to_owned(), text: text.to_owned(), code, shipped, is_test: false }
    }

    /// The first part of its module path: `store` for `store/mod.rs` and for `store.rs`.
    pub fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// How many modules lie between it and the crate's root: 1 for `store/mod.rs`, 2 for `store/types.rs`.
    pub fn depth(&self) -> usize {
        match self.path.strip_suffix("/mod.rs") {
            Some(folder) => folder.split('/').count(),
            None if matches!(self.path.as_str(), "lib.rs" | "main.rs") => 0,
            None => self.path.split('/').count(),
        }
    }

    /// The folder that its out-of-line modules are in, relative to `src/`, with a slash unless it is `src/` itself.
    fn children(&self) -> String {
        match self.path.strip_suffix("mod.rs") {
            Some(folder) => folder.to_owned(),
            None if self.depth() == 0 => String::new(),
            None => format!("{}/", self.path.trim_end_matches(".rs")),
        }
    }
}

/// Every `.rs` file under `root`, in the order of their paths.
pub fn read_tree(root: &Path) -> Vec<Source> {
    let mut sources: Vec<Source> = files(root, &["rs"])
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let relative = path.strip_prefix(root).expect("the file was found under the root");
            Source::new(&relative.to_string_lossy().replace('\\', "/"), &text)
        })
        .collect();
    mark_tests(&mut sources);
    sources
}

/// Marks the files of modules that are declared under `#[cfg(test)]`.
pub fn mark_tests(sources: &mut [Source]) {
    let mut tests = BTreeSet::new();
    for source in sources.iter() {
        for name in test_modules(&source.code) {
            tests.insert(format!("{}{name}", source.children()));
        }
    }
    for source in sources {
        let stem = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        source.is_test = tests.iter().any(|test| stem == test || stem.starts_with(&format!("{test}/")));
    }
}

/// Files with one of these extensions under `root`.
pub fn files(root: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.map(|entry| entry.expect("a readable folder").path()) {
            if entry.is_dir() {
                // A package in a folder of its own, such as the fuzz targets, is built there.
                if entry.file_name().is_some_and(|name| name != "target") {
                    folders.push(entry);
                }
            } else if entry.extension().is_some_and(|e| extensions.iter().any(|wanted| e == *wanted)) {
                found.push(entry);
            }
        }
    }
    found.sort();
    found
}

/// Number of the line that the byte at `at` is in, from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1
}

/// Whether a name can go on with this byte.
pub fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The name that starts at `at`; empty if none does.
pub fn name_at(code: &str, at: usize) -> &str {
    let len = code.as_bytes()[at..].iter().take_while(|b| is_name(**b)).count();
    &code[at..at + len]
}

/// Offset of the bracket that closes the one at `open`; the end of the text if none does.
pub fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    code.len()
}

/// Turns comments and the insides of literals into blanks. Bytes and lines stay where they were.
fn blank_non_code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => at + bytes[at..].iter().take_while(|b| **b != b'\n').count(),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' if at == 0 || !is_name(bytes[at - 1]) || is_byte_prefix(bytes, at - 1) => raw_end(bytes, at),
            b'\'' => char_end(bytes, at),
            _ => at,
        };
        for byte in &mut out[at..end] {
            *byte = if *byte == b'\n' { b'\n' } else { b' ' };
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("whole characters outside of literals were left as they were")
}

fn is_byte_prefix(bytes: &[u8], at: usize) -> bool {
    matches!(bytes[at], b'b' | b'c') && (at == 0 || !is_name(bytes[at - 1]))
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if bytes[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of a raw string that starts with the `r` at `start`; `start` itself if none does.
fn raw_end(bytes: &[u8], start: usize) -> usize {
    let hashes = bytes[start + 1..].iter().take_while(|b| **b == b'#').count();
    if bytes.get(start + 1 + hashes) != Some(&b'"') {
        return start;
    }
    let end = [vec![b'"'], vec![b'#'; hashes]].concat();
    let body = start + 2 + hashes;
    bytes[body..].windows(end.len()).position(|w| w == end).map_or(bytes.len(), |at| body + at + end.len())
}

/// The end of a character literal; `start` if the quote begins a lifetime.
fn char_end(bytes: &[u8], start: usize) -> usize {
    let Some(&next) = bytes.get(start + 1) else { return start };
    if next == b'\\' {
        // At `start + 3`, because the escaped character may be a quote itself.
        let rest = bytes.get(start + 3..).unwrap_or_default();
        return start + 4 + rest.iter().take_while(|b| **b != b'\'').count();
    }
    let width = match next {
        0..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    };
    if bytes.get(start + 1 + width) == Some(&b'\'') { start + 2 + width } else { start }
}

const TEST_ATTRIBUTE: &str = "#[cfg(test)]";

/// Turns items under `#[cfg(test)]` into blanks.
fn blank_tests(code: &str) -> String {
    let mut out = code.as_bytes().to_vec();
    for (start, _) in code.match_indices(TEST_ATTRIBUTE) {
        let end = item_end(code, start + TEST_ATTRIBUTE.len());
        for byte in &mut out[start..end] {
            *byte = if *byte == b'\n' { b'\n' } else { b' ' };
        }
    }
    String::from_utf8(out).expect("what was blanked out were whole items")
}

/// Names of the modules under `#[cfg(test)]` that are in files of their own.
fn test_modules(code: &str) -> Vec<&str> {
    let item = |(at, _): (usize, &'_ str)| {
        let start = at + TEST_ATTRIBUTE.len();
        code[start..item_end(code, start)].trim().strip_prefix("mod ")?.strip_suffix(';')
    };
    code.match_indices(TEST_ATTRIBUTE).filter_map(item).map(str::trim).collect()
}

/// The end of the item that starts at or after `start`: a semicolon or the end of the first block in braces.
fn item_end(code: &str, start: usize) -> usize {
    let mut at = start;
    while at < code.len() {
        match code.as_bytes()[at] {
            b';' => return at + 1,
            b'{' => return (closing(code, at) + 1).min(code.len()),
            b'(' | b'[' => at = closing(code, at) + 1,
            _ => at += 1,
        }
    }
    code.len()
}
