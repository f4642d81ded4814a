//! Feeds `postrider_fuzz::facts`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postrider_fuzz::facts::run(bytes));
