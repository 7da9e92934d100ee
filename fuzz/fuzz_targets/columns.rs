#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bsonvault_fuzz::columns(bytes));
