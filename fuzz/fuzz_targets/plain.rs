//! See tests/fuzz/targets.rs.
#![no_main]

#[allow(dead_code)] // each target is one of them
#[path = "../../tests/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    targets::plain(bytes);
});
