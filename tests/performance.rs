//! The figures and pictures of `docs/performance.md` are those that the committed results give: no figure in it was typed by
//! hand, or left behind by results that are newer.
//!
//! Needs `python3`, with nothing but its standard library; without it this says that it skipped.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the check of a `docs` folder; `None`, said aloud, without a Python.
fn check(docs: &Path) -> Option<Output> {
    let mut command = Command::new("python3");
    command.arg("-B").arg(docs.join("performance/plot.py")).arg("--check");
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            // Written to the stream itself, because what a passing test prints is not shown.
            let _ = writeln!(std::io::stderr(), "SKIPPED: the figures of docs/performance.md, since python3: {error}");
            None
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn the_document_tells_what_was_measured() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let Some(output) = check(&docs) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_figure_that_was_typed_and_a_picture_that_is_stale_are_found() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let home = tempfile::tempdir().unwrap();
    copy(&docs.join("performance"), &home.path().join("performance"));
    let page = fs::read_to_string(docs.join("performance.md")).unwrap();
    let picture = home.path().join("performance/connections.svg");
    let drawn = fs::read_to_string(&picture).unwrap();
    let mark = "<!-- results: headline -->\n";
    for (page, picture_now, found) in [
        (
            page.replace(mark, &format!("{mark}| a figure | of | one's | own | |\n")),
            drawn.clone(),
            "performance.md is not",
        ),
        (page.clone(), drawn.replace("</svg>", "<!-- -->\n</svg>"), "connections.svg is not"),
    ] {
        fs::write(home.path().join("performance.md"), page).unwrap();
        fs::write(&picture, picture_now).unwrap();
        let Some(output) = check(home.path()) else { return };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.contains(found)), (Some(1), true), "{said}");
    }
}
