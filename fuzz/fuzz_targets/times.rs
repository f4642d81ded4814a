//! Feeds `postrider_fuzz::times`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postrider_fuzz::times::run(bytes));
