//! Feeds `postrider_fuzz::names`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postrider_fuzz::names::run(bytes));
