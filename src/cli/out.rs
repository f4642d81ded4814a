//! What commands print: data on stdout, everything else on stderr.
//!
//! **Invariants**
//! - A closed stdout ends the command quietly with 0.
//! - What others wrote (event types, names, errors of receivers) reaches a terminal without control characters.

use std::fmt::Display;
use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use super::exit::{self, Failure};

/// Standard output.
pub(super) struct Out(BufWriter<StdoutLock<'static>>);

impl Out {
    pub(super) fn stdout() -> Self {
        Self(BufWriter::new(io::stdout().lock()))
    }

    /// One line of text, which the caller knows to be printable.
    pub(super) fn line(&mut self, text: impl Display) -> Result<(), Failure> {
        writeln!(self.0, "{text}").map_err(broken)
    }

    /// Bytes as they are and the end of a line.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write_all(bytes).and_then(|()| self.0.write_all(b"\n")).map_err(broken)
    }

    /// A value as one line of JSON.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let written = serde_json::to_writer(&mut self.0, value).map_err(io::Error::from);
        written.and_then(|()| self.0.write_all(b"\n")).map_err(broken)
    }

    /// Hands on what is buffered.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush().map_err(broken)
    }
}

fn broken(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::nobody_reads(),
        _ => Failure::new(exit::STORAGE, format_args!("writing to stdout: {error}")),
    }
}

/// A line on stderr. A closed stderr is no reason to fail.
pub(super) fn note(text: impl Display) {
    // In one piece, as others may write to the same terminal or file.
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Text in aligned columns under a line of headings.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|h| (*h).to_owned()).collect()] }
    }

    /// Adds a row, with as many cells as there are headings; an empty cell is shown as `-`.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { printable(&cell) };
        self.rows.push(cells.map(shown).into());
    }

    pub(super) fn print(&self, out: &mut Out) -> Result<(), Failure> {
        self.lines().iter().try_for_each(|line| out.line(line))
    }

    /// The headings and the rows, aligned.
    pub(super) fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
        let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let aligned = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(aligned).collect()
    }
}

/// Text without what would move a terminal's cursor or change its state.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// The text of what may be absent.
pub(super) fn or_empty<T: Display>(value: Option<T>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_others_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\nü\u{9b}"), "a\\u{1b}[2Jb\\r\\nü\\u{9b}");
        let mut table = Table::new(&["A", "B"]);
        table.row([String::new(), "\u{7}".to_owned()]);
        assert_eq!(table.rows[1], ["-", "\\u{7}"]);
    }
}
