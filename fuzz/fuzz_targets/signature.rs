//! Feeds `postrider_fuzz::signature`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postrider_fuzz::signature::run(bytes));
