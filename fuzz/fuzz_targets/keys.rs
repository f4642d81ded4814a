//! Feeds `postrider_fuzz::keys`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postrider_fuzz::keys::run(bytes));
