//! "Did you mean": the known word nearest to one that isn't known.

/// Longest word that is compared, in characters; a longer one is no slip of the finger.
const WORD_CHARS_MAX: usize = 64;

/// ` (did you mean "x"?)`, or nothing when no known word is near.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let length = word.chars().count();
    if length > WORD_CHARS_MAX {
        return String::new();
    }
    // A third of the letters may be wrong, and at least one; more would suggest words that have nothing in common.
    let slips_max = (length / 3).max(1);
    let near = known.into_iter().map(|k| (distance(word, k), k)).filter(|(d, _)| *d <= slips_max).min();
    near.map(|(_, k)| format!(" (did you mean {k:?}?)")).unwrap_or_default()
}

/// The words as a list in quotes, for "expected one of …".
pub(super) fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = words.into_iter().map(|w| format!("{w:?}")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => "nothing".to_owned(),
    }
}

/// Levenshtein distance: the fewest letters to insert, delete or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_textbook() {
        for (a, b, d) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("same", "same", 0)]
        {
            assert_eq!(distance(a, b), d, "{a} {b}");
            assert_eq!(distance(b, a), d, "{b} {a}");
        }
    }

    #[test]
    fn only_near_words_are_suggested() {
        let known = ["secrets", "name", "url"];
        assert_eq!(did_you_mean("secret", known), " (did you mean \"secrets\"?)");
        assert_eq!(did_you_mean("uri", known), " (did you mean \"url\"?)");
        assert_eq!(did_you_mean("colour", known), "");
        assert_eq!(did_you_mean(&"s".repeat(100_000), known), "");
    }

    #[test]
    fn lists_read_as_text() {
        assert_eq!(listed([]), "nothing");
        assert_eq!(listed(["a"]), "\"a\"");
        assert_eq!(listed(["a", "b", "c"]), "\"a\", \"b\" or \"c\"");
    }
}
