//! Sizes as people write them: `1048576`, `"64MiB"`, `"10GB"`.

/// Units and their bytes: binary ones by IEC 80000-13, decimal ones by SI. Larger ones first, binary before decimal, so
/// that [`written`] finds the shortest form.
const UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

/// The bytes that a text such as `64MiB` or `64 MiB` means; digits alone are bytes.
pub(super) fn parse(text: &str) -> Option<u64> {
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?.trim_end(), *bytes)));
    let (number, bytes) = unit.unwrap_or((text, 1));
    // `parse` would take a plus sign too.
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(bytes)
}

/// The size in the largest binary unit that divides it.
pub(super) fn written(bytes: u64) -> String {
    let unit = UNITS[..4].iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
    unit.map_or_else(|| format!("{bytes}B"), |(unit, size)| format!("{}{unit}", bytes / size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("64MiB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("10GiB", 10 << 30),
            ("10GB", 10_000_000_000),
            ("3kB", 3_000),
            ("3KB", 3_000),
            ("7B", 7),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "+1", "1.5GiB", "10 G", "10mib", "1e6", "0x10", "99999999999TiB", "１MiB"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes: u64) {
            prop_assert_eq!(parse(&written(bytes)), Some(bytes));
        }

        #[test]
        fn whole_units_are_written_as_such(count in 1u64..1024, shift in prop::sample::select(vec![10u32, 20, 30, 40])) {
            prop_assert_eq!(parse(&written(count << shift)), Some(count << shift));
            prop_assert!(written(count << shift).ends_with("iB"));
        }

        #[test]
        fn any_text_is_read_without_panic(text: String) {
            let _ = parse(&text);
        }
    }
}
