//! Feeds `postrider_fuzz::store`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postrider_fuzz::store::run(bytes));
