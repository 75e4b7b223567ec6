#![no_main]

#[path = "../entry.rs"]
#[allow(dead_code, reason = "each target uses one of its functions")]
mod entry;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entry::globs(bytes));
