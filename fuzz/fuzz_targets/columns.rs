#![no_main]

use bsonvault_fuzz::{columns, seeds};

libfuzzer_sys::fuzz_target!(init: seeds::write("columns"), |bytes: &[u8]| columns(bytes));
