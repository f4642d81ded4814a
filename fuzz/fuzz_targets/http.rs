//! Feeds `postrider_fuzz::http`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postrider_fuzz::http::run(bytes));
